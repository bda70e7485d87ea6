"""What becomes of changes while the history is away: those that carry runs go into the outage journal, and are answered.

The answers are those that the ledger would give if it had nothing but what is in the journal, which is right on a single
node: what it decided before the outage it knows itself. Of what is in the journal nothing but ids is in memory.
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
    """What the journal says of runs, as marks; `below` is asked for what is not here."""

    def __init__(self, below: SpooledRuns | None = None) -> None:
        self.marks: set[str] = set()
        self._below = below

    def __contains__(self, mark: str) -> bool:
        return mark in self.marks or (self._below is not None and mark in self._below)

    def take(self, change: RunChange) -> tuple[RunChange, SpoolReply]:
        """Take note of a change; return what of it there is to write, and its answer."""
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
    """The outage journal as the writer uses it; for its thread alone, but for `alarm`, `backlog` and `accepts_runs`."""

    def __init__(self, journal: OutageJournal, clock: Clock) -> None:
        """Find what an earlier daemon left in the journal; one that may be damaged is copied first. Raise StoreError."""
        self._journal = journal
        self._clock = clock
        self._known = SpooledRuns()
        self._place = 0  # up to where the history has it
        self._reading, self._writing = _Use(clock), _Use(clock)
        for _place, record in journal.records():
            self._known.take(_read(record))
        if journal.is_cut:
            log.error("%s", _way_out(journal.path, journal.keep_copy(clock.now())))

    @property
    def alarm(self) -> str | None:
        """Return what somebody has to see to: it cannot be used, or was damaged and copied, and the copy is still there."""
        found = sorted(glob.glob(f"{glob.escape(self._journal.path)}.damaged-*"))
        told = [self._reading.error, self._writing.error, _way_out(self._journal.path, found[-1]) if found else None]
        return "; ".join(filter(None, told)) or None

    @property
    def backlog(self) -> Backlog:
        """Return what waits to be written into the history."""
        return self._journal.backlog

    @property
    def accepts_runs(self) -> bool:
        """Return whether new runs can be written into it: there is room, and the last write went well."""
        return self._writing.error is None and self._journal.has_room

    @property
    def full(self) -> str:
        """Return in words that there is no room."""
        return self._journal.full

    @staticmethod
    def accepts(change: Change) -> TypeGuard[RunChange]:
        """Return whether a change is one that goes into the journal: not one about which the history has to be asked."""
        return isinstance(change, ClaimRun | FinishRuns) or (isinstance(change, RecordRuns) and not change.asks)

    def take(self, changes: Sequence[RunChange]) -> list[SpoolReply | StoreAwayError]:
        """Write of changes what there is room for; return their answers, an error for what is not in it.

        Of a record that does not fit whole, its first runs are taken. Raise JournalError: nothing is in it.
        """
        known = SpooledRuns(self._known)
        filling = _Filling(self._journal, known)
        answers = [filling.take(change) for change in changes]
        if filling.records:
            self._writing.make(lambda: self._journal.append(filling.records, self._clock.now(), may_use_reserve=True))
            self._known.marks |= known.marks
        return answers

    def next_group(self, most: int) -> tuple[list[RunChange], int]:
        """Return the oldest changes that the history has not, and the place behind them. Raise JournalError."""
        found = self._reading.make(lambda: list(islice(self._journal.records(self._place), most)))
        if not found and self.backlog.changes:  # it was damaged since it was opened
            aside = self._writing.make(lambda: self._journal.keep_copy(self._clock.now()))
            log.error("%s", _way_out(self._journal.path, aside))
            return [], self.backlog.size_bytes
        return [_read(record) for _, record in found], found[-1][0] if found else self._place

    def applied(self, place: int) -> None:
        """Take note that the history has everything up to a place; when that is all, the journal is empty again."""
        self._place = place
        if place >= self.backlog.size_bytes:
            self._known = SpooledRuns()
            self._place = 0
            with suppress(OutageJournalError):  # told, and tried again
                self._writing.make(self._journal.empty)

    @property
    def is_untidy(self) -> bool:
        """Return whether an error left something to do: `tidy` is called again."""
        return self._writing.error is not None or self._journal.is_untidy

    def tidy(self) -> None:
        """Look whether the journal can be written again, and leave nothing in it that does not belong there."""
        if self.is_untidy:
            with suppress(OutageJournalError):
                self._writing.make(self._journal.tidy)

    def close(self) -> None:
        """Close the journal; what waits in it, the next daemon finds."""
        self.tidy()
        self._journal.close()


class _Use:
    """What uses a file that may fail: an error is told once, and then there is a rest."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rests_until = 0.0  # monotonic
        self.error: str | None = None

    def make(self, act: Callable[[], T]) -> T:
        """Call `act`, which reads or writes. Raise JournalError."""
        if self.error is not None and self._clock.monotonic() < self._rests_until:
            raise OutageJournalError(self.error)
        try:
            result = act()
        except OutageJournalError as error:
            if str(error) != self.error:
                log.error("%s", error)
            self.error, self._rests_until = str(error), self._clock.monotonic() + REST_SECONDS
            raise
        if self.error is not None:
            log.info("the outage journal can be used again")
        self.error = None
        return result


class _Filling:
    """Records that are about to be written into the journal, as far as there is room."""

    def __init__(self, journal: OutageJournal, known: SpooledRuns) -> None:
        self._journal, self._known = journal, known
        self.records: list[bytes] = []
        self._size = 0

    def take(self, change: RunChange) -> SpoolReply | StoreAwayError:
        """Take a change, or of a record its first runs; return its answer, an error when something did not fit."""
        known = SpooledRuns(self._known)
        fresh, answer = known.take(change)
        record = _written(fresh)
        size = framed_size(record)
        if self._size + size <= self._journal.room(may_use_reserve=isinstance(change, FinishRuns)):
            self.records.append(record)
            self._size += size
            self._known.marks |= known.marks
            return answer
        if isinstance(change, RecordRuns) and len(change.runs) > 1:
            return self._take_part(change.runs)
        return StoreAwayError(self._journal.full)

    def _take_part(self, runs: Sequence[Run]) -> SpoolReply | StoreAwayError:
        half = len(runs) // 2
        taken, left = _parts(runs[:half], self.take(RecordRuns(runs[:half])))
        if left:
            left |= {run.run_id for run in runs[half:]}
        else:
            more, left = _parts(runs[half:], self.take(RecordRuns(runs[half:])))
            taken |= more
        return PartlyWrittenError(self._journal.full, taken, left) if left else taken


def _parts(runs: Sequence[Run], answer: SpoolReply | StoreAwayError) -> tuple[frozenset[str], frozenset[str]]:
    """Return which rows of a record are in the ledger, and which could not be written."""
    if isinstance(answer, PartlyWrittenError):
        return answer.taken, answer.left
    if isinstance(answer, frozenset):
        return answer, frozenset()
    return frozenset(), frozenset(run.run_id for run in runs)


def without_occurrence(record: RecordRuns, taken: frozenset[str]) -> RecordRuns:
    """Return the runs of a record that the history does not take, as runs of no occurrence: they were started."""
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
        text = "the outage journal was written by another version of schedulerd: start that once"
        raise StoreError(f"{text} ({error})") from None


def _way_out(path: str, aside: str) -> str:
    return (
        f"the outage journal {path} could not be read to its end: a crash cut it short, or it is damaged. Starts and ends "
        f"of runs may be missing in the history. It is kept as {aside}: `strings` shows what is in it; then move it away"
    )


def _taken(run_id: str) -> str:
    return f"taken {run_id}"


def _marks(run: Run) -> Iterable[str]:
    """Return what must be there only once: the run, its occurrence, its idempotency key."""
    yield run.run_id
    if run.scheduled_at is not None:
        yield f"occurrence {run.job_id} {to_micros(run.scheduled_at)} {run.attempt}"
    if run.idempotency_key is not None:
        yield f"key {run.job_id} {run.idempotency_key}"
