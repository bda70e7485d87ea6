"""The outage journal as a replacement of the ledger: changes of runs are written into it, and get a reply.

The reply is that of a ledger that contains only the journal. That is correct on a single node, which knows what it decided
before the outage. Only identifiers of the journal's content are kept in memory.
"""

from __future__ import annotations

import glob
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TypeGuard, TypeVar

from ..core.clock import Clock
from ..core.errors import PartlyWrittenError, StoreAwayError, StoreError
from ..core.models import Run, to_micros
from .changes import Change, ClaimRun, FinishRuns, RecordRuns, RunChange, from_json, to_json
from .outage_journal import Backlog, OutageJournal, OutageJournalError, framed_size

log = logging.getLogger(__name__)

RECORDED_BEFORE = "its occurrence was in the history already, which could not be asked when it was started"

REST_SECONDS = 0.5  # after an I/O error

SpoolReply = bool | frozenset[str]
T = TypeVar("T")


class SpooledRuns:
    """The runs in the journal, as marks. `below` is searched for marks that are not here."""

    def __init__(self, below: SpooledRuns | None = None) -> None:
        self.marks: set[str] = set()
        self._below = below

    def __contains__(self, mark: str) -> bool:
        return mark in self.marks or (self._below is not None and mark in self._below)

    def apply(self, change: RunChange) -> tuple[RunChange, SpoolReply]:
        """Note a change; return the part of it that is to be written, and its reply."""
        if isinstance(change, RecordRuns):
            return RecordRuns(self._enter(change.runs)), self._entered(change.runs)
        if isinstance(change, ClaimRun):
            is_free = _taken(change.run_id) not in self
            self.marks.add(_taken(change.run_id))
            return change, is_free
        self.marks.update(_taken(run.run_id) for run in change.runs)
        return FinishRuns(change.runs, self._enter(change.then)), self._entered(change.then)

    def _enter(self, runs: Iterable[Run]) -> tuple[Run, ...]:
        fresh = []
        for run in runs:
            marks = set(_marks(run))
            if not any(mark in self for mark in marks):
                self.marks |= marks
                fresh.append(run)
        return tuple(fresh)

    def _entered(self, runs: Iterable[Run]) -> frozenset[str]:
        return frozenset(run.run_id for run in runs if run.run_id in self)


class OutageSpool:
    """The outage journal as the writer uses it; for its thread alone, except `alarm`, `backlog` and `accepts_runs`."""

    def __init__(self, journal: OutageJournal, clock: Clock) -> None:
        """Read the changes of an earlier daemon. A journal that may be damaged is copied first. Raise StoreError."""
        self._journal = journal
        self._clock = clock
        self._known = SpooledRuns()
        self._place = 0  # the history has the records up to here
        self._reading, self._writing = _Access(clock), _Access(clock)
        for _place, record in journal.records():
            self._known.apply(_read(record))
        if journal.is_cut:
            log.error("%s", _advice(journal.path, journal.keep_copy(clock.now())))

    @property
    def alarm(self) -> str | None:
        """Return what an operator must do: the journal cannot be used, or was damaged, and its copy still exists."""
        found = sorted(glob.glob(f"{glob.escape(self._journal.path)}.damaged-*"))
        texts = [self._reading.error, self._writing.error, _advice(self._journal.path, found[-1]) if found else None]
        return "; ".join(filter(None, texts)) or None

    @property
    def backlog(self) -> Backlog:
        """Return how much the journal holds that is not in the history."""
        return self._journal.backlog

    @property
    def accepts_runs(self) -> bool:
        """Return whether new runs can be written: there is space, and the last write succeeded."""
        return self._writing.error is None and self._journal.has_room

    @property
    def full(self) -> str:
        """Return the message that the journal is full."""
        return self._journal.full

    @staticmethod
    def can_hold(change: Change) -> TypeGuard[RunChange]:
        """Return whether a change may go into the journal: one that only the ledger can decide may not."""
        return isinstance(change, ClaimRun | FinishRuns) or (isinstance(change, RecordRuns) and not change.asks)

    def accept(self, changes: Sequence[RunChange]) -> list[SpoolReply | StoreAwayError]:
        """Write changes as far as there is space; return their replies, errors for those that are not written.

        Of a record that does not fit as a whole, the first runs are written. Raise OutageJournalError: nothing is written.
        """
        known = SpooledRuns(self._known)
        filling = _Filling(self._journal, known)
        replies = [filling.add(change) for change in changes]
        if filling.records:
            self._writing.make(lambda: self._journal.append(filling.records, self._clock.now(), may_use_reserve=True))
            self._known.marks |= known.marks
        return replies

    def next_group(self, most: int) -> tuple[list[RunChange], int]:
        """Return the oldest changes that are not in the history, and the offset after them. Raise OutageJournalError."""
        found = self._reading.make(lambda: list(islice(self._journal.records(self._place), most)))
        if not found and self.backlog.changes:  # it was damaged since it was opened
            aside = self._writing.make(lambda: self._journal.keep_copy(self._clock.now()))
            log.error("%s", _advice(self._journal.path, aside))
            return [], self.backlog.size_bytes
        return [_read(record) for _, record in found], found[-1][0] if found else self._place

    def applied(self, place: int) -> None:
        """Note that the history has the records up to an offset; clear the journal when it has all."""
        self._place = place
        if place >= self.backlog.size_bytes:
            self._known = SpooledRuns()
            self._place = 0
            with suppress(OutageJournalError):  # logged and retried
                self._writing.make(self._journal.empty)

    @property
    def is_untidy(self) -> bool:
        """Return whether an error is to be repaired by `tidy`."""
        return self._writing.error is not None or self._journal.is_untidy

    def tidy(self) -> None:
        """Try to write the journal again, and to remove incomplete records from it."""
        if self.is_untidy:
            with suppress(OutageJournalError):
                self._writing.make(self._journal.tidy)

    def close(self) -> None:
        """Close the journal; the next daemon reads its content."""
        self.tidy()
        self._journal.close()


class _Access:
    """Access to a file that may fail: an error is logged once, and is followed by a pause."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._paused_until = 0.0  # monotonic
        self.error: str | None = None

    def make(self, act: Callable[[], T]) -> T:
        """Call `act`, which reads or writes. Raise OutageJournalError."""
        if self.error is not None and self._clock.monotonic() < self._paused_until:
            raise OutageJournalError(self.error)
        try:
            result = act()
        except OutageJournalError as error:
            if str(error) != self.error:
                log.error("%s", error)
            self.error, self._paused_until = str(error), self._clock.monotonic() + REST_SECONDS
            raise
        if self.error is not None:
            log.info("the outage journal can be used again")
        self.error = None
        return result


class _Filling:
    """Records to be written into the journal, as far as there is space."""

    def __init__(self, journal: OutageJournal, known: SpooledRuns) -> None:
        self._journal, self._known = journal, known
        self.records: list[bytes] = []
        self._size = 0

    def add(self, change: RunChange) -> SpoolReply | StoreAwayError:
        """Add a change, or the first runs of a record; return its reply, an error when a part does not fit."""
        known = SpooledRuns(self._known)
        fresh, reply = known.apply(change)
        record = _written(fresh)
        size = framed_size(record)
        if self._size + size <= self._journal.room(may_use_reserve=isinstance(change, FinishRuns)):
            self.records.append(record)
            self._size += size
            self._known.marks |= known.marks
            return reply
        if isinstance(change, RecordRuns) and len(change.runs) > 1:
            return self._add_part(change.runs)
        return StoreAwayError(self._journal.full)

    def _add_part(self, runs: Sequence[Run]) -> SpoolReply | StoreAwayError:
        half = len(runs) // 2
        taken, left = _parts(runs[:half], self.add(RecordRuns(runs[:half])))
        if left:
            left |= {run.run_id for run in runs[half:]}
        else:
            more, left = _parts(runs[half:], self.add(RecordRuns(runs[half:])))
            taken |= more
        return PartlyWrittenError(self._journal.full, taken, left) if left else taken


def _parts(runs: Sequence[Run], reply: SpoolReply | StoreAwayError) -> tuple[frozenset[str], frozenset[str]]:
    """Return which rows of a record are written, and which are not."""
    if isinstance(reply, PartlyWrittenError):
        return reply.taken, reply.left
    if isinstance(reply, frozenset):
        return reply, frozenset()
    return frozenset(), frozenset(run.run_id for run in runs)


def without_occurrence(record: RecordRuns, taken: frozenset[str]) -> RecordRuns:
    """Return the runs of a record that the history refuses, without occurrence and key: they were started."""
    return RecordRuns(tuple(
        replace(run, scheduled_at=None, idempotency_key=None, details={**run.details, "reason": RECORDED_BEFORE})
        for run in record.runs
        if run.run_id not in taken
    ))  # fmt: skip


def _written(change: RunChange) -> bytes:
    return json.dumps(to_json(change), separators=(",", ":"), default=str).encode()


def _read(record: bytes) -> RunChange:
    try:
        return from_json(json.loads(record))
    except (KeyError, TypeError, ValueError) as error:
        text = "the outage journal was written by another version of schedulerd: start that version once"
        raise StoreError(f"{text} ({error})") from None


def _advice(path: str, aside: str) -> str:
    return (
        f"the outage journal {path} could not be read to its end: a crash cut it short, or it is damaged. Starts and ends "
        f"of runs may be missing in the history. A copy is kept as {aside}: inspect it with `strings`, then move it away"
    )


def _taken(run_id: str) -> str:
    return f"taken {run_id}"


def _marks(run: Run) -> Iterable[str]:
    """Return what must be unique: the run, its occurrence, its idempotency key."""
    yield run.run_id
    if run.scheduled_at is not None:
        yield f"occurrence {run.job_id} {to_micros(run.scheduled_at)} {run.attempt}"
    if run.idempotency_key is not None:
        yield f"key {run.job_id} {run.idempotency_key}"
