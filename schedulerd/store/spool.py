"""What becomes of changes while the history is away: those that carry runs go into the outage journal, and are answered.

The answers are those that the ledger would give if it had nothing but what is in the journal, which is right on a single
node: what it decided before the outage it knows itself. Of what is in the journal nothing but ids is in memory.
"""

from __future__ import annotations

import glob
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeGuard

from ..clock import Clock
from ..errors import StoreError
from ..model import Run, to_micros
from .changes import Change, Claim, Finish, OfRuns, Record, from_json, to_json
from .journal import Backlog, Journal

log = logging.getLogger(__name__)

COME_AGAIN = "its occurrence was in the history already, which could not be asked when it was started"

Answer = bool | frozenset[str]


class Known:
    """What the journal says of runs, as marks; `below` is asked for what is not here."""

    def __init__(self, below: Known | None = None) -> None:
        self.marks: set[str] = set()
        self._below = below

    def __contains__(self, mark: str) -> bool:
        return mark in self.marks or (self._below is not None and mark in self._below)

    def take(self, change: OfRuns) -> tuple[OfRuns, Answer]:
        """Take note of a change; return what of it there is to write, and its answer."""
        if isinstance(change, Record):
            return Record(self._enter(change.runs)), self._entered(change.runs)
        if isinstance(change, Claim):
            is_free = _taken(change.run_id) not in self
            self.marks.add(_taken(change.run_id))
            return change, is_free
        self.marks.update(_taken(run.run_id) for run in change.runs)
        return Finish(change.runs, self._enter(change.then)), self._entered(change.then)

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


class Spool:
    """The outage journal as the writer uses it; for its thread alone, but for `backlog` and `takes_runs`."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        """Find what an earlier daemon left in the journal; one that may be damaged is copied first. Raise StoreError."""
        self._journal = journal
        self._clock = clock
        self._known = Known()
        self._place = 0  # up to where the history has it
        for _place, record in journal.records():
            self._known.take(_read(record))
        if journal.is_cut:
            log.error("%s", _way_out(journal.path, journal.keep_copy(clock.now())))

    @property
    def alarm(self) -> str | None:
        """Return what somebody has to see to: a journal that may be damaged was copied, and the copy is still there."""
        found = sorted(glob.glob(f"{glob.escape(self._journal.path)}.damaged-*"))
        return _way_out(self._journal.path, found[-1]) if found else None

    @property
    def backlog(self) -> Backlog:
        """Return what waits to be written into the history."""
        return self._journal.backlog

    @property
    def takes_runs(self) -> bool:
        """Return whether there is room for new runs."""
        return self._journal.has_room

    @staticmethod
    def is_for(change: Change) -> TypeGuard[OfRuns]:
        """Return whether a change is one that goes into the journal."""
        return isinstance(change, Record | Claim | Finish)

    def take(self, changes: Sequence[OfRuns]) -> list[Answer]:
        """Write changes into the journal; return their answers. Raise JournalError: none of them is in it."""
        known = Known(self._known)
        taken = [known.take(change) for change in changes]
        records = [_written(change) for change, _ in taken]
        are_ends = all(isinstance(change, Finish) for change in changes)
        self._journal.append(records, self._clock.now(), may_use_reserve=are_ends)
        self._known.marks |= known.marks
        return [answer for _, answer in taken]

    def next_group(self, most: int) -> tuple[list[OfRuns], int]:
        """Return the oldest changes that the history has not, and the place behind them."""
        found = list(islice(self._journal.records(self._place), most))
        if not found and self.backlog.changes:  # it was damaged since it was opened
            log.error("%s", _way_out(self._journal.path, self._journal.keep_copy(self._clock.now())))
            return [], self.backlog.size_bytes
        return [_read(record) for _, record in found], found[-1][0] if found else self._place

    def applied(self, place: int) -> None:
        """Take note that the history has everything up to a place; when that is all, the journal is empty again."""
        self._place = place
        if place >= self.backlog.size_bytes:
            self._journal.empty()
            self._known = Known()
            self._place = 0

    def close(self) -> None:
        """Close the journal; what waits in it, the next daemon finds."""
        self._journal.close()


def come_again(record: Record, taken: frozenset[str]) -> Record:
    """Return the runs of a record that the history does not take, as runs of no occurrence: they were started."""
    return Record(tuple(
        replace(run, scheduled_at=None, idempotency_key=None, details={**run.details, "reason": COME_AGAIN})
        for run in record.runs
        if run.run_id not in taken
    ))  # fmt: skip


def _written(change: OfRuns) -> bytes:
    return json.dumps(to_json(change), separators=(",", ":"), default=str).encode()


def _read(record: bytes) -> OfRuns:
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
