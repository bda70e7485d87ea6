"""The engine: decides about occurrences, starts runs, supervises them and records their ends.

The daemon, the benchmarks and the tests use the same class, with different launchers, clocks and stores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from ..core.clock import Clock
from ..core.concurrency import HostLoad
from ..core.loop_steps import StepSequence
from ..core.models import Job, Run
from ..host import load
from ..store.protocol import Store
from .cancellation import Cancellation
from .completion import Completion, Waiters
from .dependencies import Dependencies
from .dispatch import Dispatcher
from .launcher import Finished, Launcher
from .lifecycle import RunLifecycle
from .manual_runs import ManualRuns
from .pauses import Pauses
from .planner import Planner
from .recording import Recorder
from .recovery import OpenRuns, queue_again, start_unstarted, watch_again
from .reload import JobDefinitions
from .run_queue import RunQueue
from .scheduler import Scheduler
from .state import JobState, JobTable
from .stop_orders import StopOrders
from .timetable import Timetable


class Engine:
    """Builds and connects the components. No component is changed from outside after its construction."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        launcher: Launcher,
        node: str,
        *,
        spread_seconds: float = 60.0,
        measure: Callable[[], HostLoad] = load.measure,
        on_tick: Callable[[datetime], None] = lambda _now: None,
        on_alive: Callable[[], None] = lambda: None,
        on_ended: Callable[[Sequence[Finished]], None] = lambda _ends: None,
    ) -> None:
        """`node` is the name of this host. `measure` returns its load.

        The thread of the planner calls `on_tick` and `on_alive`, see `Planner`. `on_ended` receives runs that have ended.
        Jobs that are overdue together are started within `spread_seconds`.
        """
        self.store, self.clock, self.node = store, clock, node
        self._launcher, self._on_tick = launcher, on_tick
        self.table = table = JobTable()
        self.timetable = timetable = Timetable(clock, spread_seconds)
        self.run_queue = run_queue = RunQueue(table, clock, timetable.wake_at, measure)
        self.waiters = waiters = Waiters(table)
        self.stop_orders = stop_orders = StopOrders(table, clock, launcher)
        self.dependencies = dependencies = Dependencies(timetable, store)
        self.completion = completion = Completion(
            table, store, clock, timetable, run_queue, waiters, stop_orders, dependencies, launcher, self._promote
        )
        self.lifecycle = RunLifecycle(table, store, clock, stop_orders, completion, on_ended)
        self.cancellation = Cancellation(table, store, run_queue, completion, stop_orders)
        self.dispatcher = dispatcher = Dispatcher(
            table, store, clock, run_queue, completion, self.cancellation, launcher, self.lifecycle
        )
        self.pauses = Pauses(table, store, dispatcher.promote)
        self.recorder = recorder = Recorder(table, store, clock, timetable, run_queue, dispatcher)
        self.scheduler = Scheduler(table, store, clock, node, run_queue, recorder)
        self.manual_runs = ManualRuns(table, store, clock, node, run_queue, recorder, waiters)
        self.definitions = JobDefinitions(
            table, store, clock, timetable, run_queue, dependencies, completion, dispatcher, self.pauses, self.scheduler
        )
        self.planner = Planner(timetable, clock, self.scheduler.on_due, self.tick, self.definitions.on_jump, on_alive)
        self._steps = StepSequence(clock, {
            "the end of pauses": self.pauses.end_those_over,
            "orders to end runs": lambda _now: stop_orders.give_again(),
            "rows that could not be recorded": lambda _now: recorder.retry_postponed(),
            "queued runs": self._promote_in_time,
        })  # fmt: skip

    def _promote(self, state: JobState) -> None:
        """Start queued runs after an end. A failed start is an end, too: completion and dispatch depend on each other."""
        self.dispatcher.promote(state)

    def _promote_in_time(self, now: datetime) -> None:
        if self.run_queue.is_time(now):
            self.dispatcher.promote_all()

    def tick(self, now: datetime) -> None:
        """Perform the steps that depend on time alone. Called at each iteration of the planner's loop."""
        self._steps(now)
        self._on_tick(now)

    def watch_again(self, running: list[Run], retired: Callable[[str], Job | None]) -> None:
        """Supervise runs that an earlier daemon started, before the launcher reports anything. See `watch_again`."""
        watch_again(self.table, self._launcher, self.lifecycle, running, retired)

    def start_up(self, left: OpenRuns) -> None:
        """Continue the runs that an earlier daemon left, and start the jobs that start with the daemon."""
        start_unstarted(self.table, self.run_queue, self.dispatcher, left.unstarted)
        queue_again(self.table, self.run_queue, self.dispatcher, left.waiting)
        self.definitions.start_up()

    @property
    def trouble(self) -> str | None:
        """Return the error in the planner's loop, as a message, or None."""
        return "; ".join(filter(None, (self.planner.trouble, self._steps.trouble, self.stop_orders.trouble))) or None

    def stop(self) -> None:
        """Start no further runs; running ones continue. Callers that wait for a queued run receive its current state."""
        self.waiters.answer(self.table.stop())
