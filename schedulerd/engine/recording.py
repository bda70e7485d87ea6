"""Rows on their way into the ledger: what it takes is started, what it refuses is not, what cannot be written stays due.

A refusal (the ledger has this occurrence already) is a value: the row is not among those that are in it. That the ledger
cannot be written is an error: nothing is decided then, and the occurrence goes back to its planner, to be looked at again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from ..core.clock import Clock
from ..core.errors import PartlyWrittenError
from ..core.faults import fault_point
from ..core.models import MICROSECOND, UNFINISHED, Origin, Run, to_text
from ..store.protocol import Store
from .due import DueJob, Undecided, new_run
from .run_queue import RunQueue
from .state import JobState, JobTable

log = logging.getLogger(__name__)

AGAIN = "the clock was set back, and this job follows elapsed time: it goes on while times that were come again"
LOOK_AGAIN = timedelta(seconds=5)  # at what could not be decided
NOTED_FOR = 4 * LOOK_AGAIN.total_seconds()  # what still waits is noted again before


@dataclass(frozen=True, slots=True)
class DueEntry:
    """The row of what is due: it tells the occurrences of `each` from `first` on. `is_again`: see `DueJob`."""

    run: Run
    each: DueJob
    first: datetime
    is_again: bool = False


class UnwrittenOccurrences:
    """The occurrences that are due and cannot be written down now: how many they are, for health and the log."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._noted: dict[tuple[str, Origin, datetime], tuple[int, float]] = {}
        self._noted_at = 0.0

    def note(self, each: DueJob) -> None:
        """Take note of what waits."""
        now = self._clock.monotonic()
        if now - self._noted_at > NOTED_FOR:
            self._noted.clear()  # of another outage
        self._noted_at = now
        if not self._noted:
            log.error("what is due cannot be written down, so it is not started: it stays due until it can")
        self._noted[_key(each)] = (each.count, now)

    def settle(self, each: DueJob) -> None:
        """Take note that something was decided, which may have waited."""
        if self._noted and self._noted.pop(_key(each), None) is not None and not self._noted:
            log.info("everything that was due and could not be written down has been decided about")

    def count(self) -> int:
        """Return how many occurrences wait."""
        since = self._clock.monotonic() - NOTED_FOR
        return sum(count for count, at in list(self._noted.values()) if at >= since)


def _key(each: DueJob) -> tuple[str, Origin, datetime]:
    return each.job_id, each.origin, each.first


class Recorder:
    """Records rows. `on_taken(run)` is called for those that are durable, `on_room(state)` when one makes room again.

    `on_over(job_id, at)` hears of the jobs of which nothing will run now.
    """

    def __init__(
        self,
        table: JobTable,
        store: Store,
        clock: Clock,
        run_queue: RunQueue,
        on_taken: Callable[[Run], None],
        on_room: Callable[[JobState], None],
        on_over: Callable[[str, datetime], None],
    ) -> None:
        self._table, self._store, self._clock, self._run_queue = table, store, clock, run_queue
        self._on_taken, self._on_room, self._on_over = on_taken, on_room, on_over
        self.put_back: Callable[[Sequence[Undecided]], None] = lambda _undecided: None
        self.unwritten = UnwrittenOccurrences(clock)

    def record(self, rows: Sequence[Run], asks: bool = False) -> Future[frozenset[str]]:
        """Hand rows to the store. The lock is held since they were admitted: nobody may claim one before it is there."""
        fault_point("before_claim")
        return self._store.record(rows, asks)

    def record_due(self, entries: Sequence[DueEntry]) -> list[Callable[[], None]]:
        """Hand over the rows of what is due; return what goes on with them, to be called without the lock, which is held.

        Those that the ledger may have already are asked about.
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
        """Go on with rows when they are durable, or not. The lock is not held: that may be now. `due` are by run_id."""
        recorded.add_done_callback(partial(self._entered, rows, due or {}))

    def _entered(self, rows: Sequence[Run], due: Mapping[str, DueEntry], recorded: Future[frozenset[str]]) -> None:
        """Go on with what the ledger took; forget what it did not take, or let it be due again."""
        taken, left = _outcome(rows, recorded)
        fault_point("after_claim")
        for run in rows:
            entry = due.get(run.run_id)
            if run.run_id in taken:
                with self._table.lock:
                    self._run_queue.entered(run.run_id)
                self._on_taken(run)
            elif entry is not None and entry.is_again and run.status in UNFINISHED and self._comes_again(entry):
                left.discard(run.run_id)
            else:
                if run.run_id not in left:
                    log.warning("job %s: not started, the ledger has this occurrence already", run.job_id)
                elif entry is None:
                    log.error("job %s: not started: %s", run.job_id, recorded.exception())
                self.forget(run)
        self._settle(due, left)
        self._count_on([run for run in rows if run.run_id not in left])

    def _comes_again(self, entry: DueEntry) -> bool:
        """Deal with a time that was decided before the clock was set back: only what follows elapsed time goes on.

        Its run is an occurrence of its own, at the moment of this decision, so that none is started twice. False for others.
        """
        run, at = entry.run, entry.run.scheduled_at
        state = self._table.state_of(run)
        trigger = state.job.trigger if state is not None else None
        rhythm = trigger.rhythm if trigger is not None else None
        if state is None or rhythm is None or at is None or rhythm.next_after(at - MICROSECOND) != at:
            log.info("job %s: %s was decided before the clock was set back: not started again", run.job_id, at)
            return False
        self.forget(run)
        with self._table.lock:
            now = self._clock.now()
            fresh = self._store.numbered(new_run(run.job_id, Origin.SCHEDULE, now, max(now, at + MICROSECOND), run.node))
            fresh = self._run_queue.admitted(state, replace(fresh, details={"reason": AGAIN, "again": to_text(at)}))
            recorded = self.record([fresh])
        self.when_recorded([fresh], recorded, {fresh.run_id: replace(entry, run=fresh, is_again=False)})
        return True

    def forget(self, run: Run) -> None:
        """Count a run no more, and give its place to others."""
        with self._table.lock:
            state = self._table.state_of(run)
            if state is None:
                return
            self._run_queue.leave(state, run.run_id)
        self._on_room(state)

    def _settle(self, due: Mapping[str, DueEntry], left: set[str]) -> None:
        """Put back what could not be written, from its first occurrence on; the rest is decided."""
        at = self._clock.now() + LOOK_AGAIN
        undecided: dict[int, Undecided] = {}
        for run_id, entry in due.items():
            before = undecided.get(id(entry.each))
            if run_id in left and (before is None or entry.first <= before.after):
                undecided[id(entry.each)] = entry.each.left(entry.first, at)
        for entry in due.values():
            if id(entry.each) not in undecided:
                self.unwritten.settle(entry.each)
        for one in undecided.values():
            self.unwritten.note(one.each.later_than(one.after))
        if undecided:
            self.put_back(list(undecided.values()))

    def _count_on(self, rows: Iterable[Run]) -> None:
        """Plan jobs that are counted from the end of their last run, of which nothing will run now."""
        for run in rows:
            state = self._table.state_of(run)
            if state is not None and state.job.trigger is not None and state.job.trigger.waits_for_end:
                with self._table.lock:
                    is_open = state.running or state.waiting
                if not is_open:
                    self._on_over(run.job_id, self._clock.now())


def _may_be_known(entry: DueEntry) -> bool:
    return entry.each.asks is not None and entry.first <= entry.each.asks


def _outcome(rows: Iterable[Run], recorded: Future[frozenset[str]]) -> tuple[frozenset[str], set[str]]:
    """Return which rows are in the ledger, and which could not be written."""
    error = recorded.exception()
    if error is None:
        return recorded.result(), set()
    if isinstance(error, PartlyWrittenError):
        return error.taken, set(error.left)
    return frozenset(), {run.run_id for run in rows}
