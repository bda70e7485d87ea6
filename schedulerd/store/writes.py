"""The half of a store that writes: each write is a change, handed to the writer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future

from ..core.models import JobRecord, Pause, Position, Run
from .backend import Database
from .changes import ClaimRun, DeleteRuns, FinishRuns, RecordRuns, SaveDay, SaveJobs, SetPause
from .order import SequenceGenerator
from .outage_journal import Backlog
from .outage_spool import OutageSpool
from .protocol import DailyFigures
from .writer import Writer


class Writes(ABC):
    """What every backend does with writes; `Store` says what each of them means."""

    def __init__(self, database: Database, spool: OutageSpool | None = None) -> None:
        self._database = database
        self._spool = spool
        self._writer = Writer(database, spool)
        self._order = SequenceGenerator()

    def open(self) -> None:
        """Open the database, and write into it what an earlier daemon left in the outage journal.

        Raise StoreAwayError when it is away: it may be opened later. Raise StoreError for what does not pass by itself.
        """
        self._writer.open()
        self._order.continue_after(self.last_place())

    @abstractmethod
    def last_place(self) -> Position:
        """Return the largest sequence and the largest run_id in the ledger."""

    def numbered(self, run: Run) -> Run:
        """Return a new run with its place; see `Store.numbered`."""
        return self._order.numbered(run)

    @property
    def trouble(self) -> str | None:
        """Return why writes are waiting, or None."""
        return self._writer.trouble

    @property
    def accepts_runs(self) -> bool:
        """Return whether new runs can be entered now; see `Store.accepts_runs`."""
        return self._writer.accepts_runs

    @property
    def ends_in_memory(self) -> int:
        """Return how many ends of runs wait in memory; see `Store.ends_in_memory`."""
        return self._writer.ends_in_memory

    @property
    def backlog(self) -> Backlog:
        """Return what waits in the outage journal."""
        return self._writer.backlog

    @property
    def alarm(self) -> str | None:
        """Return what somebody has to see to of the outage journal; a SQLite file adds its own damage."""
        return self._spool.alarm if self._spool is not None else None

    @property
    def commits(self) -> int:
        """Return how many transactions were committed since the start."""
        return self._writer.commits

    def record(self, runs: Sequence[Run], asks: bool = False) -> Future[frozenset[str]]:
        """Enter rows into the ledger; see `Store.record`."""
        return self._writer.submit(RecordRuns([self._order.numbered(run) for run in runs], asks))

    def claim(self, run_id: str) -> Future[bool]:
        """Take a queued run; see `Store.claim`."""
        return self._writer.submit(ClaimRun(run_id))

    def finish(self, runs: Sequence[Run], then: Sequence[Run] = ()) -> Future[frozenset[str]]:
        """Write how runs ended; see `Store.finish`."""
        return self._writer.submit(FinishRuns(runs, [self._order.numbered(run) for run in then]))

    def save_jobs(self, records: Sequence[JobRecord]) -> Future[None]:
        """Remember rules; see `Store.save_jobs`."""
        return self._writer.submit(SaveJobs(records))

    def set_pause(self, job_id: str, pause: Pause | None) -> Future[None]:
        """Pause or resume; see `Store.set_pause`."""
        return self._writer.submit(SetPause(job_id, pause))

    def delete_runs(self, run_ids: Sequence[str]) -> Future[list[str]]:
        """Delete rows; see `Store.delete_runs`."""
        return self._writer.submit(DeleteRuns(run_ids))

    def save_day(self, day: str, jobs: Sequence[DailyFigures]) -> Future[None]:
        """Replace a day; see `Store.save_day`."""
        return self._writer.submit(SaveDay(day, jobs))

    def close(self) -> None:
        """Write what is waiting, and close."""
        self._writer.close()
        self._database.close()
