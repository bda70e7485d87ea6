"""Completion: what follows the end of a run.

Its row is written, together with the row of the next attempt. Its slots are released. Queued runs are promoted. Waiting
callers and dependent jobs are notified.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import NamedTuple

from ..core.clock import Clock
from ..core.loop_steps import GuardedStep
from ..core.models import ENDED, Job, Result, Run, Status, finish, new_run_id, to_text
from ..core.retries import deadline_of, format_deadline, is_rerun_after, next_attempt, outcome_of, retry_after
from ..store.protocol import Store
from .dependencies import Dependencies
from .launcher import Finished, Launcher
from .run_queue import RunQueue
from .state import JobState, JobTable
from .stop_orders import StopOrders
from .timetable import Timetable

log = logging.getLogger(__name__)

NO_JOB = "its job is no longer in the configuration"


def next_row(job: Job, given: Run, ended: Run, now: datetime) -> tuple[Run, Run | None]:
    """Return the row of a run that has ended, and that of the next attempt, if any. `given` is the run when it started."""
    started_at = min(ended.started_at or given.queued_at, now)  # the start may be unknown, or later if the clock was ahead
    deadline_at = deadline_of(job, given, started_at)
    retry_at = retry_after(job, ended, deadline_at, now)
    if retry_at is None:
        return ended, None
    row = next_attempt(given, new_run_id(now), retry_at, deadline_at, now, is_rerun_after(job, ended))
    details = {**ended.details, "retry": row.run_id, "retry_at": to_text(retry_at)}
    return replace(ended, details=details), row


class _Waiter(NamedTuple):
    future: Future[Run]
    follows: bool


class Waiters:
    """The futures of callers that wait for the ends of runs.

    Each future receives one result: the run that has ended, or its current state when this daemon will not learn its end.
    """

    def __init__(self, table: JobTable) -> None:
        self._table = table
        self._futures: dict[str, list[_Waiter]] = {}

    def add(self, run_id: str, future: Future[Run], follows: bool = True) -> None:
        """Let `future` wait for a running or queued run. When it `follows`, it waits for the last attempt after that run.

        The table's lock is held.
        """
        waiting = [each for each in self._futures.get(run_id, ()) if not each.future.done()]  # callers may cancel theirs
        self._futures[run_id] = [*waiting, _Waiter(future, follows)]

    def drop(self, run_id: str) -> None:
        """Forget the futures that wait for a run; another function completes them."""
        with self._table.lock:
            self._futures.pop(run_id, None)

    def move(self, run_id: str, to: str) -> None:
        """Let the futures that follow a run wait for its next attempt. The table's lock is held."""
        waiting = self._futures.pop(run_id, None)
        if waiting is not None:
            self._futures.setdefault(to, []).extend(each for each in waiting if each.follows)
            self._futures[run_id] = [each for each in waiting if not each.follows]

    def answer(self, runs: Iterable[Run]) -> None:
        """Complete the futures that wait for one of the runs."""
        with self._table.lock:
            found = [(run, each.future) for run in runs for each in self._futures.pop(run.run_id, [])]
        for run, future in found:
            with suppress(InvalidStateError):  # cancelled by its caller, or already completed when the daemon stopped
                future.set_result(run)


class Completion:
    """Records the ends of runs, and performs the steps that follow."""

    def __init__(
        self,
        table: JobTable,
        store: Store,
        clock: Clock,
        timetable: Timetable,
        run_queue: RunQueue,
        waiters: Waiters,
        stop_orders: StopOrders,
        dependencies: Dependencies,
        launcher: Launcher,
        promote: Callable[[JobState], None],
    ) -> None:
        """`promote(state)` starts the queued runs that may start after a run of this job has ended."""
        self._table, self._store, self._clock, self._timetable = table, store, clock, timetable
        self._run_queue, self._waiters, self._stop_orders = run_queue, waiters, stop_orders
        self._dependencies, self._launcher, self._promote = dependencies, launcher, promote
        self._following = GuardedStep("what follows the end of a run", clock)

    def finish(self, ends: Sequence[Finished]) -> None:
        """Record the ends of runs that were launched."""
        self._write([self._ended(each) for each in ends])

    def end_unstarted(self, ends: Sequence[tuple[Run, Result]]) -> Future[frozenset[str]] | None:
        """Record the ends of runs that were never started; they are in no queue. Return None when there are none."""
        now = self._clock.now()
        return self._write([(run, finish(run, result, now, None)) for run, result in ends])

    def _ended(self, end: Finished) -> tuple[Run, Run]:
        """Return a run in two states: when it was started, and when it had ended."""
        given = end.run
        result = self._stop_orders.result(given, end.result)
        state = self._table.state_of(given)
        if result.status is Status.TIMED_OUT and given.details.get("deadline") and state is not None:
            result = replace(result, message=format_deadline(state.job))
        ended = finish(given, result, end.ended_at, end.duration_seconds)
        if ended.status is not Status.SUCCESS:
            log.warning("job %s: run %s %s: %s", ended.job_id, ended.run_id, ended.status, ended.error_message)
        return given, ended

    def _write(self, ends: Sequence[tuple[Run, Run]]) -> Future[frozenset[str]] | None:
        """Write ends, with the next attempts. Each end is the run when it was started and when it had ended."""
        if not ends:
            return None
        rows = [self._with_retry(given, ended) for given, ended in ends]
        ended = [run for run, _ in rows]
        retries = {run.run_id: retry for run, retry in rows if retry is not None}
        written = self._store.finish(ended, list(retries.values()))
        written.add_done_callback(partial(self._recorded, ended, retries))
        return written

    def _with_retry(self, given: Run, ended: Run) -> tuple[Run, Run | None]:
        """Return a run that has ended, and its next attempt. An error in the second must not lose the first."""
        try:
            return self._next_row(given, ended)
        except Exception as error:  # this end, and those written with it, are known nowhere else
            log.exception("job %s: cannot decide whether run %s is retried", ended.job_id, ended.run_id)
            details = {**ended.details, "retry": f"unknown: {type(error).__name__}: {error}"}
            return replace(ended, details=details), None

    def _next_row(self, given: Run, ended: Run) -> tuple[Run, Run | None]:
        state = self._table.states.get(given.job_id)
        if state is None or (ended.started_at is None and ended.status is not Status.FAILED):
            return ended, None
        ended, retry = next_row(state.job, given, ended, self._clock.now())
        return ended, self._store.numbered(retry) if retry is not None else None

    def _recorded(self, ended: list[Run], retries: Mapping[str, Run], written: Future[frozenset[str]]) -> None:
        """Continue after the attempt to write ends: the runs have ended, whether it succeeded or not."""
        error = written.exception()
        if error is not None:
            log.error("the end of %d runs could not be written: %s", len(ended), error)
        taken = frozenset() if error is not None else written.result()
        counted, orphans = self._count_all(ended, {run_id: each for run_id, each in retries.items() if each.run_id in taken})
        self._waiters.answer(ended)
        self.end_unstarted([(retry, Result(Status.CANCELLED, message=NO_JOB)) for retry in orphans])
        final = {run.run_id for run in ended if run.run_id not in retries or retries[run.run_id].run_id not in taken}
        for state, run in counted:
            with self._following:
                self._promote(state)
            if run.run_id in final:
                with self._following:
                    self._plan_from_end(state, run)
        if error is None:
            self._launcher.forget([run.run_id for run in ended])
            self._dependencies.follow([run for run in ended if run.run_id in final and outcome_of(run) in ENDED])

    def _count_all(self, ended: list[Run], retries: Mapping[str, Run]) -> tuple[list[tuple[JobState, Run]], list[Run]]:
        """Update the table. Return the ended runs with their states, and the next attempts of removed jobs."""
        counted: list[tuple[JobState, Run]] = []
        orphans: list[Run] = []
        with self._table.lock:
            self._table.remember_ended(ended, is_away=self._store.trouble is not None)
            for run in ended:
                state = self._table.state_of(run)
                if state is not None:
                    self._count(state, run)
                    counted.append((state, run))
                if run.run_id in retries:
                    orphans += self._queue_retry(run, retries[run.run_id])
            self._table.notify_progress()
        return counted, orphans

    def _count(self, state: JobState, run: Run) -> None:
        self._run_queue.leave(state, run.run_id)
        is_result = run.status is not Status.SKIPPED
        if is_result and (state.last_result is None or state.last_result.position < run.position):
            state.last_result = run
        if run.status is Status.SUCCESS and (state.last_success is None or state.last_success.position < run.position):
            state.last_success = run
        if not state.running:
            self._table.retired.pop(run.job_id, None)

    def _queue_retry(self, run: Run, retry: Run) -> list[Run]:
        """Queue the next attempt of a run, which its waiters follow. Return it when its job was removed."""
        state = self._table.states.get(run.job_id)
        if state is None:
            return [retry]
        log.info("job %s: run %s is retried at %s", run.job_id, run.run_id, retry.details["retry_at"])
        self._run_queue.wait(state, retry)
        if not self._table.is_stopping:  # otherwise the next attempt starts in another daemon
            self._waiters.move(run.run_id, retry.run_id)
        return []

    def _plan_from_end(self, state: JobState, run: Run) -> None:
        if state.job.trigger is not None and state.job.trigger.waits_for_end and not state.running:
            plan_from_end(self._table, self._timetable, run.job_id, run.finished_at or self._clock.now())


def plan_from_end(table: JobTable, timetable: Timetable, job_id: str, at: datetime) -> None:
    """Plan the next time of a job that is counted from the end of its last run."""
    next_at = timetable.plan_from_end(job_id, at)
    state = table.states.get(job_id)
    if next_at is not None and state is not None:
        with table.lock:
            state.next_run_at = next_at
            table.touch(state)
