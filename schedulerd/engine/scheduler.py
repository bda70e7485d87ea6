"""Scheduler: the rules decide about each due occurrence, and the decision is recorded before a run starts.

The order is always the same. The decision is made under the lock of the job table. It is recorded. When the row is durable,
the run is launched. When the run has ended, its end is recorded. When that is durable, waiting callers are notified. A run
that the ledger refuses, because it already has this occurrence, is not launched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from ..core.clock import Clock
from ..core.misfires import (
    CHANGED,
    PAUSED,
    Decision,
    decide_due,
    decide_held,
    one_by_one,
    pass_all,
    pause_is_over,
    still_starts,
)
from ..core.models import MICROSECOND, UNFINISHED, Origin, Run, Status
from ..store.protocol import Store
from .due import CHECK_AGAIN, DueJob, Undecided, details_of, new_run, passed_run
from .recording import DueEntry, Recorder
from .run_queue import RunQueue
from .state import JobState, JobTable

log = logging.getLogger(__name__)


class Scheduler:
    """Decides about due occurrences, and records the decisions."""

    def __init__(
        self, table: JobTable, store: Store, clock: Clock, node: str, run_queue: RunQueue, recorder: Recorder
    ) -> None:
        self._table, self._store, self._clock, self._node = table, store, clock, node
        self._run_queue, self._recorder = run_queue, recorder

    def on_due(self, batch: list[DueJob], now: datetime) -> list[Undecided]:
        """Decide about all jobs that are due together, and record the decisions in one transaction.

        Return the undecided jobs. A job that cannot be decided does not affect the others.
        """
        if not self._store.accepts_runs:  # a decision must be recordable: later `catch_up` applies
            for each in batch:
                self._recorder.unwritten.note(each)
            return [each.all_left(now + CHECK_AGAIN) for each in batch]
        entries: list[DueEntry] = []
        undecided: list[Undecided] = []
        with self._table.lock:  # it is not held when runs are launched
            for each in [] if self._table.is_stopping else batch:
                decided, left = self._decide_one(each, now)
                entries += decided
                undecided += left
            continuations = self._record(entries)
        for proceed in continuations:
            proceed()
        return undecided

    def _decide_one(self, each: DueJob, now: datetime) -> tuple[list[DueEntry], list[Undecided]]:
        """Return the admitted rows of a due job, and its undecided occurrences. The table's lock is held."""
        state = self._table.states.get(each.job_id)
        if state is None or each.is_void:  # the job was just removed or planned again
            return [DueEntry(self._given_up(each, CHANGED, now), each, each.first)], []
        entries: list[DueEntry] = []
        try:
            decision = self._decide(state, each, now)
            entries = self._entries(state, each, decision, now)
            next_at = self._next_of(state, each, now)
            admitted = [self._admitted(state, entry) for entry in entries]
        except Exception:
            log.exception("job %s: cannot decide about its due occurrences, trying again", each.job_id)
            self._withdraw(entries)
            return [], [each.all_left(now + CHECK_AGAIN)]
        state.next_run_at = next_at
        self._table.touch(state)
        if not decision.later:
            return admitted, []
        at = now + timedelta(seconds=state.job.catch_up_spacing_seconds)
        return admitted, [each.left(decision.later[0].scheduled_at, at)]

    def _admitted(self, state: JobState, entry: DueEntry) -> DueEntry:
        if entry.run.status not in UNFINISHED:
            return entry
        return replace(entry, run=self._run_queue.admitted(state, entry.run))

    def _record(self, entries: list[DueEntry]) -> list[Callable[[], None]]:
        """Pass rows to the store. After an error, none of them counts as running: they are decided again."""
        try:
            return self._recorder.record_due(entries)
        except Exception:
            self._withdraw(entries)
            raise

    def _withdraw(self, entries: Sequence[DueEntry]) -> None:
        """Stop counting admitted rows that will not be recorded. The table's lock is held."""
        for entry in entries:
            state = self._table.states.get(entry.run.job_id)
            if state is not None:
                self._run_queue.leave(state, entry.run.run_id)

    @staticmethod
    def _next_of(state: JobState, each: DueJob, now: datetime) -> datetime | None:
        if each.origin is not Origin.SCHEDULE or state.job.trigger is None or each.is_held:
            return state.next_run_at
        return state.job.trigger.next_after(now) if state.job.trigger.has_blackouts else each.next_at

    @staticmethod
    def _decide(state: JobState, each: DueJob, now: datetime) -> Decision:
        decision = _decided(state, each, now)
        # The ends that a job follows are recorded one by one: the ledger must have each end that was followed.
        return decision if each.origin is Origin.SCHEDULE else one_by_one(decision, each.due)

    def _given_up(self, each: DueJob, why: str, now: datetime) -> Run:
        (passed,) = pass_all(each.due, Status.MISSED, why).passed
        return passed_run(passed, each, now, self._node)

    def _entries(self, state: JobState, each: DueJob, decision: Decision, now: datetime) -> list[DueEntry]:
        """Return a row for every part of a decision. Their ids sort like their times. None is admitted yet."""
        ids_at = iter(now + place * MICROSECOND for place in range(len(decision.passed) + len(decision.start)))
        decided = each.before(decision.later[0].scheduled_at) if decision.later else each
        rows = [self._store.numbered(passed_run(one, each, next(ids_at), self._node)) for one in decision.passed]
        entries = [DueEntry(row, decided, one.gap.first) for row, one in zip(rows, decision.passed, strict=True)]
        for start in decision.start:
            is_catch_up = start.is_misfire and each.origin is Origin.SCHEDULE
            origin = Origin.CATCH_UP if is_catch_up else each.origin
            run = self._store.numbered(new_run(state.job.job_id, origin, next(ids_at), start.scheduled_at, self._node))
            run = replace(run, details=details_of(state.job, start, each, now))
            entries.append(DueEntry(run, decided, start.scheduled_at, each.is_again))
        return entries

    def give_up(self, each: DueJob, why: str) -> None:
        """Record that due occurrences will not be started any more."""
        run = self._given_up(each, why, self._clock.now())
        self._recorder.unwritten.resolve(each)
        self._recorder.record_until_written(run, self._store.record([run]), partial(self.give_up, each, why))

    def catch_up_pause(self, job_id: str, skipped: Run) -> None:
        """Run a job once, now, after a pause: a second attempt of the newest occurrence that the pause skipped."""
        with self._table.lock:
            state = self._table.get(job_id)
            run = self._store.numbered(new_run(job_id, Origin.CATCH_UP, self._clock.now(), skipped.scheduled_at, self._node))
            run = self._run_queue.admitted(state, replace(run, attempt=skipped.attempt + 1))
            recorded = self._recorder.record([run])
        self._recorder.record_until_written(run, recorded, partial(self.catch_up_pause, job_id, skipped))


def _decided(state: JobState, each: DueJob, now: datetime) -> Decision:
    if not still_starts(state.job, each.origin):
        return pass_all(each.due, Status.MISSED, CHANGED)
    if state.pause is not None and not pause_is_over(state.pause.until, now):
        return pass_all(each.due, Status.SKIPPED, PAUSED)
    return decide_held(state.job, each.due, now) if each.is_held else decide_due(state.job, each.due, now)
