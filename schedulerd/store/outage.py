"""What the writer does while the database is away: answer changes of runs from the outage journal, and try again.

All use of the database is in a thread of its own, so that nothing waits for a server that does not answer. When the
database is back, it gets first what is in the journal, oldest first, and then what was kept here: changes that are not of
runs, for a moment, and ends of runs that the journal did not take, of which there are no more than runs that were started.
Without a journal everything is kept.

A change that fails with StoreAwayError was not made, and may be tried again. So one that the database may yet make, because
it is busy with it, does not fail before the database has answered.
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
SOON_SECONDS = 2.0  # so long a write may take; then it goes on alone
TRIES_OF_A_MOMENT = 4  # after so many failures in a row, what cannot go into the journal fails
TRIES_AT_END = 4
FAILURES_AT_END = 2  # of what is under way, and of one more
MOST_IN_ONE = 1000  # changes of the journal in one transaction


@dataclass
class _Attempt:
    """What the database is busy with: a group of the journal up to `place`, or changes, of which some may be answered."""

    done: Future[list[Any]]
    items: list[PendingChange]
    place: int | None = None
    is_unclear: bool = False  # it may have made them before, and lost the answer


class Outage:
    """Used by the writer's thread; `trouble`, `backlog`, `accepts_runs` and `ends_in_memory` by all."""

    def __init__(self, database: Database, spool: OutageSpool | None) -> None:
        self.trouble: str | None = None
        self._database = database
        self._spool = spool
        self._kept: list[PendingChange] = []
        self._attempt: _Attempt | None = None
        self._failures = 0
        self._full_at: int | None = None  # the journal, when it did not take what is kept
        self.ends_in_memory = 0
        self._hurry = threading.Event()
        self._hand = WorkerThread("store-database")

    @property
    def is_on(self) -> bool:
        """Return whether the database may not be written directly."""
        return self.trouble is not None

    @property
    def backlog(self) -> Backlog:
        """Return what waits in the journal."""
        return self._spool.backlog if self._spool is not None else Backlog()

    @property
    def accepts_runs(self) -> bool:
        """Return whether rows of new runs are taken now."""
        return self.trouble is None or (self._spool is not None and self._spool.accepts_runs)

    def begin(self) -> None:
        """Have the thread that uses the database. Raise RuntimeError when there is none to be had."""
        self._hand.begin()

    @property
    def is_untidy(self) -> bool:
        """Return whether the journal is to be looked after, outage or not."""
        return self._spool is not None and self._spool.is_untidy

    def tidy(self) -> None:
        """Look after the journal."""
        if self._spool is not None:
            self._spool.tidy()

    def catch_up(self) -> None:
        """Write what is in the journal when the database has been opened. Raise StoreAwayError."""
        count = self.backlog.changes
        while self._spool is not None and self.backlog.changes:
            try:
                changes, place = self._spool.next_group(MOST_IN_ONE)
            except OutageJournalError as error:
                raise StoreAwayError(str(error)) from error
            repeat(self._database, changes)
            self._spool.applied(place)
        if count:
            log.info("%s of the outage journal are in the history now", counted(count, "change"))

    def write(self, batch: list[PendingChange]) -> bool:
        """Write into the database; when it does not take a batch, or not soon, take over. Return whether it took it."""
        done = self._hand.do(lambda: apply_each(self._database, [change for change, _ in batch]))
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
        """Keep what was not answered because of an error that nobody expected: it is made again, as in an outage."""
        if not self.is_on:
            self._begin(f"{type(error).__name__}: {error}")
        theirs = [*self._kept, *(self._attempt.items if self._attempt is not None else ())]
        there = {id(future) for _, future in theirs}
        self._kept += [item for item in _unanswered(batch) if id(item[1]) not in there]

    def advance(self, batch: list[PendingChange]) -> None:
        """Deal with changes, and look after the attempt."""
        self._kept += batch
        if batch:
            self._full_at = None
        self.tidy()
        self._set_aside()
        attempt = self._attempt
        if attempt is not None and attempt.done.done():
            self._attempt = None
            self._learn(attempt)
        if self.is_on and self._attempt is None:
            self._attempt = self._try()
        self._count_ends()

    def end(self) -> None:
        """Try for the last time; what waits in the journal then, the next daemon finds."""
        self._hurry.set()
        most = self._failures + FAILURES_AT_END
        for _ in range(TRIES_AT_END):
            if not self.is_on or self._failures >= most:
                break
            attempt, self._attempt = self._attempt or self._try(), None
            if attempt is None:
                break
            attempt.done.exception()
            self._learn(attempt)
            self._set_aside()
        self._kept += _unanswered(self._attempt.items) if self._attempt is not None else []
        reject(self._kept, self._error())
        self._hand.close()
        if self.backlog.changes:
            log.error("%s wait in the outage journal for the next start", counted(self.backlog.changes, "change"))
        if self._spool is not None:
            self._spool.close()

    # Answering

    def _set_aside(self) -> None:
        """Answer from the journal what it takes; keep the rest for a moment, ends of runs for as long as it takes."""
        if self._spool is not None:
            self._spooled(self._spool)
        self._give_up()

    def _count_ends(self) -> None:
        under_way = self._attempt.items if self._attempt is not None else []
        items = _unanswered([*self._kept, *under_way])
        self.ends_in_memory = sum(len(change.runs) for change, _ in items if isinstance(change, FinishRuns))

    def _spooled(self, spool: OutageSpool) -> None:
        """Write into the journal, and answer, what is there for it; let fail what it does not take.

        Ends do not fail, and neither does what the database is busy with.
        """
        under_way = _unanswered(self._attempt.items) if self._attempt is not None else []
        mine = [item for item in [*self._kept, *under_way] if _is_of_runs(item[0])]
        if not mine or self._full_at == self.backlog.size_bytes:
            return
        results = _offered(spool, mine, self._error())
        stays = {id(future) for _, future in under_way}
        stays |= {id(future) for change, future in mine if isinstance(change, FinishRuns)}
        done = [
            (item, result) for item, result in zip(mine, results, strict=True)
            if not isinstance(result, StoreAwayError) or id(item[1]) not in stays
        ]  # fmt: skip
        self._full_at = self.backlog.size_bytes if len(done) < len(mine) and not spool.is_untidy else None
        gone = {id(future) for (_, future), _ in done}
        self._kept = [item for item in self._kept if id(item[1]) not in gone]
        resolve([item for item, _ in done], [result for _, result in done])

    def _give_up(self) -> None:
        """Let fail, after a moment, what was kept and is no end of a run."""
        if self._spool is None or self._failures < TRIES_OF_A_MOMENT:
            return
        given_up = [item for item in self._kept if not isinstance(item[0], FinishRuns)]
        self._kept = [item for item in self._kept if isinstance(item[0], FinishRuns)]
        reject(given_up, self._error())

    def _error(self) -> StoreError:
        return StoreAwayError(f"the history cannot be written now: {self.trouble}")

    # Trying

    def _try(self) -> _Attempt | None:
        """Let the database make what it has not; None when that cannot be read now."""
        if self._spool is not None and self.backlog.changes:
            try:
                changes, place = self._spool.next_group(MOST_IN_ONE)
            except OutageJournalError as error:
                self.trouble = str(error)
                return None
            return _Attempt(self._hand.do(self._patient(lambda: repeat(self._database, changes))), [], place)
        kept, self._kept = self._kept, []
        return self._again(kept)

    def _again(self, items: list[PendingChange], is_unclear: bool = False) -> _Attempt:
        """Let the database make changes; it rests after a failure."""
        changes = [change for change, _ in items]
        done = self._hand.do(self._patient(lambda: apply_each(self._database, changes)))
        return _Attempt(done, items, is_unclear=is_unclear)

    def _patient(self, act: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
        """Return what does the same, and rests after a failure."""

        def attempt() -> list[Any]:
            try:
                return act()
            except Exception:
                self._hurry.wait(RETRY_SECONDS)
                raise

        return attempt

    def _learn(self, attempt: _Attempt) -> None:
        """Draw the conclusions of an attempt."""
        error = attempt.done.exception()
        if error is not None:
            self.trouble = str(error)
            self._failures += 1
            left = _unanswered(attempt.items)
            if left and (attempt.is_unclear or (isinstance(error, StoreAwayError) and error.is_unclear)):
                self._attempt = self._again(left, is_unclear=True)
            else:
                self._kept, self._full_at = left + self._kept, None
            self._give_up()
            return
        self._failures = 0
        if attempt.place is None or self._spool is None:
            resolve(attempt.items, attempt.done.result())
        else:
            self._spool.applied(attempt.place)
        if not self.backlog.changes and not self._kept:
            log.info("the history can be written again, and has everything")
            self.trouble = None


def _offered(spool: OutageSpool, items: Sequence[PendingChange], away: StoreError) -> list[Any]:
    """Return the answers of the journal, and errors for what it does not take."""
    for_it = [change for change, _ in items if spool.accepts(change)]
    try:
        answers: Iterator[Any] = iter(spool.take(for_it))
    except OutageJournalError as error:
        answers = itertools.repeat(StoreAwayError(str(error)))
    return [next(answers) if spool.accepts(change) else away for change, _ in items]


def _is_of_runs(change: Change) -> bool:
    return isinstance(change, RecordRuns | ClaimRun | FinishRuns)


def _unanswered(items: Sequence[PendingChange]) -> list[PendingChange]:
    return [item for item in items if not item[1].done()]


def repeat(database: Database, changes: Sequence[Change]) -> list[Any]:
    """Make changes that were answered from the journal. Rows that the ledger refuses were started all the same.

    One that the database refuses is logged and left out. Raise StoreAwayError.
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
        log.warning("occurrences that were started during an outage were in the history already: entered once more")
        apply_each(database, [*again, *changes])
    for change, result in pairs:
        if isinstance(result, StoreError):
            log.error("a change of the outage journal is lost: %r", change)
    return results
