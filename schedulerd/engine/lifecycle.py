"""The lifecycle of a run, from the reports of its launcher: whether it may start, that it has started, that it has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from ..core.clock import Clock
from ..core.models import Run
from ..store.protocol import Store
from .completion import Completion
from .launcher import Finished
from .state import JobTable, last_success_at
from .stop_orders import StopOrders


class RunLifecycle:
    """Receives the reports of the launcher; see `launcher.RunListener`."""

    def __init__(
        self,
        table: JobTable,
        store: Store,
        clock: Clock,
        stop_orders: StopOrders,
        completion: Completion,
        on_ended: Callable[[Sequence[Finished]], None],
    ) -> None:
        """`on_ended` receives the runs that have ended, after their ends were passed to the store."""
        self._table, self._store, self._clock = table, store, clock
        self._stop_orders, self._completion, self._on_ended = stop_orders, completion, on_ended

    def may_start(self, run: Run) -> None:
        """Raise StoppingError when a run that is about to start was ordered to end."""
        with self._table.lock:
            self._stop_orders.refuse(run)

    def last_success_at(self, run: Run) -> datetime | None:
        """Return the instant up to which the job of a run has done its work, or None when no success is known."""
        return last_success_at(self._table, self._store, run, self._clock.now())

    def on_started(self, run: Run, started_at: datetime) -> Run:
        """Accept that a run has started, and return it. The start is written with its end."""
        run = replace(run, started_at=started_at)
        self._table.update_running(run)
        return run

    def on_unkilled(self, run: Run, survivors: str) -> None:
        """Record which processes of a run survived SIGKILL."""
        with self._table.lock:
            known = self._table.find(run.run_id) or run
            self._table.update_running(replace(known, details={**known.details, "not_killed": survivors}))

    def on_finished(self, ends: Sequence[Finished]) -> None:
        """Record the ends of runs."""
        self._completion.finish(ends)
        self._on_ended(ends)
