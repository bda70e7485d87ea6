"""Outages: while the database cannot be written, changes of runs go to the outage journal, and the database is retried.

Every call to the database is made in a thread of its own, so that the writer never waits for a server that does not answer.
When the database can be written again, it receives the content of the journal, oldest first, and then the changes that were
kept in memory. These are changes that are not of runs, for a short time, and ends of runs that the journal did not accept,
of which there are at most as many as started runs. Without a journal, all changes are kept in memory.

A change that fails with StoreAwayError was not applied, and may be retried. Therefore a change that the database may still
apply, because it is being processed, does not fail before the database has answered.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..core.errors import StoreAwayError, StoreError
from ..core.units import counted
from .backend import Database, PendingChange, apply_each, reject, resolve
from .changes import Change, ClaimRun, FinishRuns, RecordRuns
from .outage_journal import Backlog, OutageJournalError
from .outage_spool import OutageSpool, without_occurrence
from .worker_thread import WorkerThread

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
SOON_SECONDS = 2.0  # how long the writer waits for a write; then the write continues in the background
FAILURES_BEFORE_REJECT = 4  # in a row; then changes that the journal does not accept fail
TRIES_AT_END = 4
FAILURES_AT_END = 2  # of the current attempt, and of one more
MOST_IN_ONE = 1000  # changes of the journal in one transaction


@dataclass
class _Attempt:
    """What the database is processing: records of the journal up to `place`, or changes, some of which may be completed."""

    done: Future[list[Any]]
    items: list[PendingChange]
    place: int | None = None
    is_unclear: bool = False  # an earlier attempt may have applied them, and its answer was lost


class Outage:
    """Used by the writer's thread; `trouble`, `backlog`, `accepts_runs` and `ends_in_memory` by all threads."""

    def __init__(self, database: Database, spool: OutageSpool | None) -> None:
        self.trouble: str | None = None
        self._database = database
        self._spool = spool
        self._kept: list[PendingChange] = []
        self._attempt: _Attempt | None = None
        self._failures = 0
        self._full_at: int | None = None  # size of the journal when it did not accept the kept changes
        self.ends_in_memory = 0
        self._closing = threading.Event()
        self._worker = WorkerThread("store-database")

    @property
    def is_on(self) -> bool:
        """Return whether there is an outage."""
        return self.trouble is not None

    @property
    def backlog(self) -> Backlog:
        """Return the state of the journal."""
        return self._spool.backlog if self._spool is not None else Backlog()

    @property
    def accepts_runs(self) -> bool:
        """Return whether new runs can be recorded now."""
        return self.trouble is None or (self._spool is not None and self._spool.accepts_runs)

    def begin(self) -> None:
        """Start the thread that uses the database. Raise RuntimeError when the system has no more threads."""
        self._worker.begin()

    @property
    def is_untidy(self) -> bool:
        """Return whether an error of the journal is to be repaired, with or without an outage."""
        return self._spool is not None and self._spool.is_untidy

    def tidy(self) -> None:
        """Repair the journal, if necessary and possible."""
        if self._spool is not None:
            self._spool.tidy()

    def catch_up(self) -> None:
        """Write the content of the journal into the database, which has just been opened. Raise StoreAwayError."""
        count = self.backlog.changes
        while self._spool is not None and self.backlog.changes:
            try:
                changes, place = self._spool.next_group(MOST_IN_ONE)
            except OutageJournalError as error:
                raise StoreAwayError(str(error)) from error
            apply_journaled(self._database, changes)
            self._spool.applied(place)
        if count:
            log.info("outage journal: %s written into the history", counted(count, "change"))

    def write(self, batch: list[PendingChange]) -> bool:
        """Write a batch into the database; begin an outage if that fails or takes too long. Return whether it is written."""
        done = self._worker.do(lambda: apply_each(self._database, [change for change, _ in batch]))
        try:
            results = done.result(None if self._spool is None else SOON_SECONDS)
        except StoreAwayError as error:
            self._begin(str(error))
            if error.is_unclear:
                self._attempt = self._again(batch, is_unclear=True)
            self.advance([] if error.is_unclear else batch)
            return False
        except TimeoutError:
            self._begin(f"it has not answered for {SOON_SECONDS:g} s")
            self._attempt = _Attempt(done, batch)
            self.advance([])
            return False
        resolve(batch, results)
        return True

    def _begin(self, trouble: str) -> None:
        log.error("the history cannot be written: %s", trouble)
        self.trouble, self._failures = trouble, 0

    def on_unexpected_error(self, batch: list[PendingChange], error: Exception) -> None:
        """Keep the changes that an unexpected error left uncompleted: they are retried as in an outage."""
        if not self.is_on:
            self._begin(f"{type(error).__name__}: {error}")
        known = [*self._kept, *(self._attempt.items if self._attempt is not None else ())]
        there = {id(future) for _, future in known}
        self._kept += [item for item in _unanswered(batch) if id(item[1]) not in there]

    def advance(self, batch: list[PendingChange]) -> None:
        """Process changes during an outage, and the result of the current attempt."""
        self._kept += batch
        if batch:
            self._full_at = None
        self.tidy()
        self._complete_from_journal()
        attempt = self._attempt
        if attempt is not None and attempt.done.done():
            self._attempt = None
            self._on_result(attempt)
        if self.is_on and self._attempt is None:
            self._attempt = self._try()
        self._count_ends()

    def end(self) -> None:
        """Try for the last time, and close. The next daemon reads what is left in the journal."""
        self._closing.set()
        most = self._failures + FAILURES_AT_END
        for _ in range(TRIES_AT_END):
            if not self.is_on or self._failures >= most:
                break
            attempt, self._attempt = self._attempt or self._try(), None
            if attempt is None:
                break
            attempt.done.exception()
            self._on_result(attempt)
            self._complete_from_journal()
        self._kept += _unanswered(self._attempt.items) if self._attempt is not None else []
        reject(self._kept, self._error())
        self._worker.close()
        if self.backlog.changes:
            log.error("outage journal: %s left for the next start", counted(self.backlog.changes, "change"))
        if self._spool is not None:
            self._spool.close()

    # The journal

    def _complete_from_journal(self) -> None:
        """Complete the changes that the journal accepts. Keep the others for a short time, ends until they are written."""
        if self._spool is not None:
            self._write_to_journal(self._spool)
        self._reject_old()

    def _count_ends(self) -> None:
        under_way = self._attempt.items if self._attempt is not None else []
        items = _unanswered([*self._kept, *under_way])
        self.ends_in_memory = sum(len(change.runs) for change, _ in items if isinstance(change, FinishRuns))

    def _write_to_journal(self, spool: OutageSpool) -> None:
        """Write the changes of runs into the journal and complete them; fail those that it does not accept.

        Ends do not fail, and neither do changes that the database is processing.
        """
        under_way = _unanswered(self._attempt.items) if self._attempt is not None else []
        eligible = [item for item in [*self._kept, *under_way] if _is_of_runs(item[0])]
        if not eligible or self._full_at == self.backlog.size_bytes:
            return
        results = _offer(spool, eligible, self._error())
        stays = {id(future) for _, future in under_way}
        stays |= {id(future) for change, future in eligible if isinstance(change, FinishRuns)}
        done = [
            (item, result) for item, result in zip(eligible, results, strict=True)
            if not isinstance(result, StoreAwayError) or id(item[1]) not in stays
        ]  # fmt: skip
        self._full_at = self.backlog.size_bytes if len(done) < len(eligible) and not spool.is_untidy else None
        gone = {id(future) for (_, future), _ in done}
        self._kept = [item for item in self._kept if id(item[1]) not in gone]
        resolve([item for item, _ in done], [result for _, result in done])

    def _reject_old(self) -> None:
        """Fail the kept changes, except ends of runs, after FAILURES_BEFORE_REJECT failures."""
        if self._spool is None or self._failures < FAILURES_BEFORE_REJECT:
            return
        rejected = [item for item in self._kept if not isinstance(item[0], FinishRuns)]
        self._kept = [item for item in self._kept if isinstance(item[0], FinishRuns)]
        reject(rejected, self._error())

    def _error(self) -> StoreError:
        return StoreAwayError(f"the history cannot be written now: {self.trouble}")

    # Attempts

    def _try(self) -> _Attempt | None:
        """Start an attempt with what the database lacks; None when the journal cannot be read now."""
        if self._spool is not None and self.backlog.changes:
            try:
                changes, place = self._spool.next_group(MOST_IN_ONE)
            except OutageJournalError as error:
                self.trouble = str(error)
                return None
            return _Attempt(self._worker.do(self._pausing(lambda: apply_journaled(self._database, changes))), [], place)
        kept, self._kept = self._kept, []
        return self._again(kept)

    def _again(self, items: list[PendingChange], is_unclear: bool = False) -> _Attempt:
        """Start an attempt with changes."""
        changes = [change for change, _ in items]
        done = self._worker.do(self._pausing(lambda: apply_each(self._database, changes)))
        return _Attempt(done, items, is_unclear=is_unclear)

    def _pausing(self, act: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
        """Return a call that does the same, and pauses after a failure."""

        def attempt() -> list[Any]:
            try:
                return act()
            except Exception:
                self._closing.wait(RETRY_SECONDS)
                raise

        return attempt

    def _on_result(self, attempt: _Attempt) -> None:
        """Process the result of an attempt."""
        error = attempt.done.exception()
        if error is not None:
            self.trouble = str(error)
            self._failures += 1
            left = _unanswered(attempt.items)
            if left and (attempt.is_unclear or (isinstance(error, StoreAwayError) and error.is_unclear)):
                self._attempt = self._again(left, is_unclear=True)
            else:
                self._kept, self._full_at = left + self._kept, None
            self._reject_old()
            return
        self._failures = 0
        if attempt.place is None or self._spool is None:
            resolve(attempt.items, attempt.done.result())
        else:
            self._spool.applied(attempt.place)
        if not self.backlog.changes and not self._kept:
            log.info("the history can be written again, and is complete")
            self.trouble = None


def _offer(spool: OutageSpool, items: Sequence[PendingChange], away: StoreError) -> list[Any]:
    """Offer changes to the journal; return its replies, and errors for the changes that it does not accept."""
    accepted = [change for change, _ in items if spool.can_hold(change)]
    try:
        replies: Iterator[Any] = iter(spool.accept(accepted))
    except OutageJournalError as error:
        replies = itertools.repeat(StoreAwayError(str(error)))
    return [next(replies) if spool.can_hold(change) else away for change, _ in items]


def _is_of_runs(change: Change) -> bool:
    return isinstance(change, RecordRuns | ClaimRun | FinishRuns)


def _unanswered(items: Sequence[PendingChange]) -> list[PendingChange]:
    return [item for item in items if not item[1].done()]


def apply_journaled(database: Database, changes: Sequence[Change]) -> list[Any]:
    """Apply changes that the journal has completed. Runs whose rows the ledger refuses have been started nevertheless.

    A change that the database refuses is logged and left out. Raise StoreAwayError.
    """
    results = apply_each(database, changes)
    pairs = list(zip(changes, results, strict=True))
    again = [
        without_occurrence(change, result)
        for change, result in pairs
        if isinstance(change, RecordRuns) and not isinstance(result, StoreError)
    ]
    again = [record for record in again if record.runs]
    if again:
        log.warning("runs of an outage have occurrences that were in the history already: recorded without occurrence")
        apply_each(database, [*again, *changes])
    for change, result in pairs:
        if isinstance(result, StoreError):
            log.error("outage journal: a change was refused and is lost: %r", change)
    return results
