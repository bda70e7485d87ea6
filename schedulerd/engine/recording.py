"""Records rows in the ledger. Accepted rows are started, refused ones are not, and unwritten ones remain due.

A refusal (the ledger already has this occurrence) is a value: the row is not among the accepted ones. A ledger that cannot
be written is an error: then no decision is made, and the occurrence returns to the timetable.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from ..core.clock import Clock
from ..core.errors import PartlyWrittenError
from ..core.faults import fault_point
from ..core.models import MICROSECOND, UNFINISHED, Origin, Run, to_text
from ..store.protocol import Store
from .completion import plan_from_end
from .dispatch import Dispatcher
from .due import CHECK_AGAIN, DueJob, Undecided, new_run
from .run_queue import RunQueue
from .state import JobTable
from .timetable import Timetable

log = logging.getLogger(__name__)

AGAIN = "the clock was set back, and this job follows elapsed time: it continues while past times occur again"
NOTED_FOR = 4 * CHECK_AGAIN.total_seconds()  # occurrences that are still unwritten are noted again before this


@dataclass(frozen=True, slots=True)
class DueEntry:
    """The row of the due occurrences of `each` from `first` on. `is_again`: see `DueJob`."""

    run: Run
    each: DueJob
    first: datetime
    is_again: bool = False


class UnwrittenOccurrences:
    """Counts the due occurrences that cannot be recorded now, for health and the log."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._noted: dict[tuple[str, Origin, datetime], tuple[int, float]] = {}
        self._noted_at = 0.0

    def note(self, each: DueJob) -> None:
        """Note occurrences that cannot be recorded now."""
        now = self._clock.monotonic()
        if now - self._noted_at > NOTED_FOR:
            self._noted.clear()  # those of an earlier outage
        self._noted_at = now
        if not self._noted:
            log.error("due jobs cannot be recorded, so they are not started; they stay due until the store can be written")
        self._noted[_key(each)] = (each.count, now)

    def resolve(self, each: DueJob) -> None:
        """Note that occurrences, which may have been unwritten, were decided."""
        if self._noted and self._noted.pop(_key(each), None) is not None and not self._noted:
            log.info("all due jobs that could not be recorded have been decided")

    def count(self) -> int:
        """Return the number of unwritten occurrences."""
        since = self._clock.monotonic() - NOTED_FOR
        return sum(count for count, at in list(self._noted.values()) if at >= since)


def _key(each: DueJob) -> tuple[str, Origin, datetime]:
    return each.job_id, each.origin, each.first


class Recorder:
    """Records rows, and starts the next step when they are durable."""

    def __init__(
        self, table: JobTable, store: Store, clock: Clock, timetable: Timetable, run_queue: RunQueue, dispatcher: Dispatcher
    ) -> None:
        self._table, self._store, self._clock, self._timetable = table, store, clock, timetable
        self._run_queue, self._dispatcher = run_queue, dispatcher
        self.unwritten = UnwrittenOccurrences(clock)
        self._postponed: deque[Callable[[], None]] = deque()  # until the store can be written

    def record(self, rows: Sequence[Run], asks: bool = False) -> Future[frozenset[str]]:
        """Pass rows to the store. The lock is held since they were admitted, so none is claimed before it is recorded."""
        fault_point("before_claim")
        return self._store.record(rows, asks)

    def record_due(self, entries: Sequence[DueEntry]) -> list[Callable[[], None]]:
        """Pass the rows of due occurrences to the store. Return the functions that continue with them.

        The lock is held. It must not be held for the calls of these functions. Each row that the ledger may already have
        is checked by the store.
        """
        known = [entry for entry in entries if _may_be_known(entry)]
        fresh = [entry for entry in entries if not _may_be_known(entry)]
        ways: list[Callable[[], None]] = []
        for some, asks in ((fresh, False), (known, True)):
            if not some:
                continue
            runs = [entry.run for entry in some]
            recorded = self.record(runs, asks)
            ways.append(partial(self.when_recorded, runs, recorded, {entry.run.run_id: entry for entry in some}))
        return ways

    def when_recorded(
        self, rows: Sequence[Run], recorded: Future[frozenset[str]], due: Mapping[str, DueEntry] | None = None
    ) -> None:
        """Continue with rows when they are durable or were not recorded. The lock is not held. `due` is by run_id."""
        recorded.add_done_callback(partial(self._recorded, rows, due or {}))

    def _recorded(self, rows: Sequence[Run], due: Mapping[str, DueEntry], recorded: Future[frozenset[str]]) -> None:
        """Continue with accepted rows. Release the others, or make them due again."""
        taken, left = _outcome(rows, recorded)
        fault_point("after_claim")
        for run in rows:
            entry = due.get(run.run_id)
            if run.run_id in taken:
                with self._table.lock:
                    self._run_queue.confirm(run.run_id)
                self._dispatcher.accept(run)
            elif entry is not None and entry.is_again and run.status in UNFINISHED and self._start_again(entry):
                left.discard(run.run_id)
            else:
                if run.run_id not in left:
                    log.warning("job %s: not started: the ledger has this occurrence already", run.job_id)
                elif entry is None:
                    log.error("job %s: not started: %s", run.job_id, recorded.exception())
                self._dispatcher.release(run)
        self._put_back(due, left)
        self._plan_from_end([run for run in rows if run.run_id not in left])

    def _start_again(self, entry: DueEntry) -> bool:
        """Start an occurrence again that was decided before the clock was set back, when its job follows elapsed time.

        The run belongs to a separate occurrence, at the time of this decision, so that none is started twice. Return False
        for other jobs.
        """
        run, at = entry.run, entry.run.scheduled_at
        state = self._table.state_of(run)
        trigger = state.job.trigger if state is not None else None
        rhythm = trigger.rhythm if trigger is not None else None
        if state is None or rhythm is None or at is None or rhythm.next_after(at - MICROSECOND) != at:
            log.info("job %s: %s was decided before the clock was set back: not started again", run.job_id, at)
            return False
        self._dispatcher.release(run)
        with self._table.lock:
            now = self._clock.now()
            fresh = self._store.numbered(new_run(run.job_id, Origin.SCHEDULE, now, max(now, at + MICROSECOND), run.node))
            fresh = self._run_queue.admitted(state, replace(fresh, details={"reason": AGAIN, "again": to_text(at)}))
            recorded = self.record([fresh])
        self.when_recorded([fresh], recorded, {fresh.run_id: replace(entry, run=fresh, is_again=False)})
        return True

    def record_until_written(self, run: Run, recorded: Future[frozenset[str]], again: Callable[[], None]) -> None:
        """Continue with a row. If it cannot be recorded, call `again` when the store can be written."""
        self.when_recorded([run], recorded)
        recorded.add_done_callback(lambda done: self._postponed.append(again) if done.exception() is not None else None)

    def retry_postponed(self) -> None:
        """Repeat the calls whose rows could not be recorded, when the store can be written."""
        for _ in range(len(self._postponed) if self._store.accepts_runs else 0):
            self._postponed.popleft()()

    def _put_back(self, due: Mapping[str, DueEntry], left: set[str]) -> None:
        """Return unrecorded occurrences to the timetable, from the first one on. The others are decided."""
        at = self._clock.now() + CHECK_AGAIN
        undecided: dict[int, Undecided] = {}
        for run_id, entry in due.items():
            before = undecided.get(id(entry.each))
            if run_id in left and (before is None or entry.first <= before.after):
                undecided[id(entry.each)] = entry.each.left(entry.first, at)
        for entry in due.values():
            if id(entry.each) not in undecided:
                self.unwritten.resolve(entry.each)
        for one in undecided.values():
            self.unwritten.note(one.each.later_than(one.after))
        if undecided:
            self._timetable.put_back(list(undecided.values()))

    def _plan_from_end(self, rows: Iterable[Run]) -> None:
        """Plan the jobs that are counted from the end of their last run, when none of their runs is open."""
        for run in rows:
            state = self._table.state_of(run)
            if state is not None and state.job.trigger is not None and state.job.trigger.waits_for_end:
                with self._table.lock:
                    is_open = state.running or state.waiting
                if not is_open:
                    plan_from_end(self._table, self._timetable, run.job_id, self._clock.now())


def _may_be_known(entry: DueEntry) -> bool:
    return entry.each.asks is not None and entry.first <= entry.each.asks


def _outcome(rows: Iterable[Run], recorded: Future[frozenset[str]]) -> tuple[frozenset[str], set[str]]:
    """Return the rows that are in the ledger, and those that could not be recorded."""
    error = recorded.exception()
    if error is None:
        return recorded.result(), set()
    if isinstance(error, PartlyWrittenError):
        return error.taken, set(error.left)
    return frozenset(), {run.run_id for run in rows}
