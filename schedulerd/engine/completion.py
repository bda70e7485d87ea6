"""What follows from the end of a run: its row, the row of the next attempt in the same transaction, and who is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime
from functools import partial

from ..core.clock import Clock
from ..core.loop_steps import GuardedStep
from ..core.models import ENDED, Job, Result, Run, Status, finish, new_run_id, to_text
from ..core.retries import deadline_of, format_deadline, is_rerun_after, next_attempt, outcome_of, retry_after
from ..store.protocol import Store
from .run_queue import RunQueue
from .state import JobState, JobTable
from .stop_orders import StopOrders
from .waiters import Waiters

log = logging.getLogger(__name__)

NO_JOB = "its job is no longer in the configuration"


def next_row(job: Job, given: Run, ended: Run, now: datetime) -> tuple[Run, Run | None]:
    """Return a run as it ended, and the row of the attempt that follows it if there is one. `given` is it as it started."""
    started_at = min(ended.started_at or given.queued_at, now)  # its start may be in no row, or by a clock that was ahead
    deadline_at = deadline_of(job, given, started_at)
    retry_at = retry_after(job, ended, deadline_at, now)
    if retry_at is None:
        return ended, None
    row = next_attempt(given, new_run_id(now), retry_at, deadline_at, now, is_rerun_after(job, ended))
    told = {**ended.details, "retry": row.run_id, "retry_at": to_text(retry_at)}
    return replace(ended, details=told), row


class Ends:
    """Writes ends, makes room for what waits, and then tells who waits for them.

    `on_room(state)` is called for each job of which a run is over, `on_over(run)` for each run that was the last attempt of
    its occurrence, `on_final(runs)` with all of those together when their ends are durable. `on_written(run_ids)` hears of
    all ends that are durable.
    """

    def __init__(
        self,
        table: JobTable,
        store: Store,
        clock: Clock,
        run_queue: RunQueue,
        waiters: Waiters,
        stop_orders: StopOrders,
        on_room: Callable[[JobState], None],
        on_over: Callable[[JobState, Run], None],
    ) -> None:
        self._table, self._store, self._clock = table, store, clock
        self._run_queue, self._waiters, self._stop_orders = run_queue, waiters, stop_orders
        self._on_room, self._on_over = on_room, on_over
        self.on_final: Callable[[list[Run]], None] = lambda _runs: None
        self.on_written: Callable[[list[str]], None] = lambda _run_ids: None
        self._following = GuardedStep("what follows the end of a run", clock)
        self.is_stopping = False
        self.on_idle: Callable[[], None] = lambda: None

    def finished(self, given: Run, result: Result, ended_at: datetime, duration_seconds: float | None) -> tuple[Run, Run]:
        """Return a run as it was started and as it ended, for `write`."""
        result = self._stop_orders.result(given, result)
        state = self._table.state_of(given)
        if result.status is Status.TIMED_OUT and given.details.get("deadline") and state is not None:
            result = replace(result, message=format_deadline(state.job))
        ended = finish(given, result, ended_at, duration_seconds)
        if ended.status is not Status.SUCCESS:
            log.warning("job %s: run %s %s: %s", ended.job_id, ended.run_id, ended.status, ended.error_message)
        return given, ended

    def cancel(self, runs: Sequence[Run], result: Result) -> Future[frozenset[str]] | None:
        """End runs that wait and will never have their turn; they are out of their queues already. None: there are none."""
        now = self._clock.now()
        return self.write([(run, finish(run, result, now, None)) for run in runs])

    def write(self, ends: Sequence[tuple[Run, Run]]) -> Future[frozenset[str]] | None:
        """Write how runs ended, each given as it was started and as it ended, with the attempts that follow."""
        if not ends:
            return None
        rows = [self._followed(given, ended) for given, ended in ends]
        ended = [run for run, _ in rows]
        retries = {run.run_id: retry for run, retry in rows if retry is not None}
        written = self._store.finish(ended, list(retries.values()))
        written.add_done_callback(partial(self._recorded, ended, retries))
        return written

    def _followed(self, given: Run, ended: Run) -> tuple[Run, Run | None]:
        """Return a run as it ended, and what follows it. Where that cannot be told, its end is written all the same."""
        try:
            return self._with_retry(given, ended)
        except Exception as error:  # nobody else knows of this end, or of those that are written with it
            log.exception("job %s: whether another attempt follows run %s could not be told", ended.job_id, ended.run_id)
            told = f"unknown: {type(error).__name__}: {error}"
            return replace(ended, details={**ended.details, "retry": told}), None

    def _with_retry(self, given: Run, ended: Run) -> tuple[Run, Run | None]:
        state = self._table.states.get(given.job_id)
        if state is None or (ended.started_at is None and ended.status is not Status.FAILED):
            return ended, None
        ended, retry = next_row(state.job, given, ended, self._clock.now())
        return ended, self._store.numbered(retry) if retry is not None else None

    def _recorded(self, ended: list[Run], retries: Mapping[str, Run], written: Future[frozenset[str]]) -> None:
        error = written.exception()
        if error is not None:
            log.error("the end of %d runs could not be written: %s", len(ended), error)
        taken = frozenset() if error is not None else written.result()
        free: list[tuple[JobState, Run]] = []
        orphans: list[Run] = []
        with self._table.lock:
            self._table.remember_ended(ended, is_away=self._store.trouble is not None)
            for run in ended:
                state = self._table.state_of(run)
                if state is not None:
                    self._count(state, run)
                    free.append((state, run))
                retry = retries.get(run.run_id)
                if retry is not None and retry.run_id in taken:
                    orphans += self._follow(run, retry)
            self.on_idle()
        self._waiters.tell(ended)
        self.cancel(orphans, Result(Status.CANCELLED, message=NO_JOB))
        final = {run.run_id for run in ended if run.run_id not in retries or retries[run.run_id].run_id not in taken}
        for state, run in free:
            with self._following:
                self._on_room(state)
            if run.run_id in final:
                with self._following:
                    self._on_over(state, run)
        if error is None:
            self.on_written([run.run_id for run in ended])
            self.on_final([run for run in ended if run.run_id in final and outcome_of(run) in ENDED])

    def _count(self, state: JobState, run: Run) -> None:
        self._run_queue.leave(state, run.run_id)
        is_result = run.status is not Status.SKIPPED
        if is_result and (state.last_result is None or state.last_result.position < run.position):
            state.last_result = run
        if run.status is Status.SUCCESS and (state.last_success is None or state.last_success.position < run.position):
            state.last_success = run
        if not state.running:
            self._table.retired.pop(run.job_id, None)

    def _follow(self, run: Run, retry: Run) -> list[Run]:
        """Let the next attempt wait for its time, and who waits for this one wait for it; return it if its job is gone."""
        state = self._table.states.get(run.job_id)
        if state is None:
            return [retry]
        log.info("job %s: run %s is tried again at %s", run.job_id, run.run_id, retry.details["retry_at"])
        self._run_queue.wait(state, retry)
        if not self.is_stopping:  # otherwise nobody here will see the next attempt
            self._waiters.move(run.run_id, retry.run_id)
        return []
