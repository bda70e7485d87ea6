"""The store: the ledger of occurrences, which is also the history of runs.

`Store` is the contract that every backend keeps; `tests/store/test_contract.py` holds them to it. Writes return at once
with a future that is done when the change is durable: whoever must not go on before, waits for it. Reads are plain calls;
they see everything whose future was done, and never wait for a writer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from ..core.errors import StoreError
from ..core.models import JobRecord, Pause, Position, Run, Status
from ..core.retention import NeededRows, RetentionRow
from .outage_journal import Backlog

PATIENCE = 30.0  # seconds

T = TypeVar("T")


def durable(write: Future[T], seconds: float = PATIENCE) -> T:
    """Wait until a write is durable, and return its result. Raise StoreError when that takes too long."""
    try:
        return write.result(seconds)
    except TimeoutError:
        raise StoreError(f"the store has not been written for {seconds:g} s (is its disk full?)") from None


@dataclass(frozen=True, slots=True)
class DayOfJob:
    """What analytics found about one job on one day."""

    day: str  # YYYY-MM-DD
    job_id: str
    runs: Mapping[str, int]  # by status
    records_processed: int
    duration_p50: float | None
    duration_p95: float | None
    lateness_p50: float | None
    lateness_p99: float | None
    duration_max: float | None = None
    lateness_p95: float | None = None
    output_bytes: int = 0
    timezone: str | None = None  # in which its day begins and ends; None: not known any more


@dataclass(frozen=True, slots=True)
class Ended:
    """The part of a finished run that analytics needs."""

    job_id: str
    status: str
    duration_seconds: float | None
    lateness_seconds: float | None
    records_processed: int
    output_bytes: int = 0


class Store(Protocol):
    """Where the ledger is kept. A write whose future fails with StoreError has changed nothing (but see `record`).

    Newer and older mean the order of recording (see `order.py`), never that of clocks.
    """

    @property
    def trouble(self) -> str | None:
        """Return why writes are waiting (disk full, …), or None when all is well."""
        ...

    @property
    def takes_runs(self) -> bool:
        """Return whether new runs can be entered now: into the ledger, or, while that is away, into the outage journal."""
        ...

    @property
    def ends_kept(self) -> int:
        """Return how many ends of runs are in memory only: neither the ledger nor the outage journal can be written."""
        ...

    @property
    def backlog(self) -> Backlog:
        """Return what waits in the outage journal to be written into the ledger."""
        ...

    @property
    def alarm(self) -> str | None:
        """Return what somebody has to see to although the store works (a damaged history was set aside, …), or None."""
        ...

    def numbered(self, run: Run) -> Run:
        """Return a new run with its place in the order of recording; what is handed over without one gets it then."""
        ...

    def record(self, runs: Sequence[Run], asks: bool = False) -> Future[frozenset[str]]:
        """Enter rows into the ledger, all in one transaction; the result are the run_ids that are in it now.

        A run whose occurrence (job_id, scheduled_at, attempt) or idempotency key is there already is left
        out, and is not in the result: somebody else was first. Recording the same run twice is the same as once.

        Fails with StoreAwayError when they cannot be written now, with PartlyWrittenError when that is true of some: these
        may be recorded again. While the ledger is away, the outage journal answers for it from what it holds itself;
        `asks` says that it may not, since these occurrences, or this key, may be in the ledger already.
        """
        ...

    def claim(self, run_id: str) -> Future[bool]:
        """Take a `queued` run to start it: it becomes `running`. False when it is not queued any more."""
        ...

    def finish(self, runs: Sequence[Run], then: Sequence[Run] = ()) -> Future[frozenset[str]]:
        """Write how runs ended (status, times, exit code, records, message, details). The first end stays.

        A run without a row is entered, with its end: the history may have been replaced by an older one meanwhile.

        `then` are rows that follow from these ends, entered in the same transaction as `record` does: never one without the
        other. The result are the run_ids of those that are in the ledger now.
        """
        ...

    def save_jobs(self, records: Sequence[JobRecord]) -> Future[None]:
        """Remember rule and planned_since of jobs; pauses are left as they are."""
        ...

    def set_pause(self, job_id: str, pause: Pause | None) -> Future[None]:
        """Pause a job that `save_jobs` knows, or end its pause."""
        ...

    def delete_runs(self, run_ids: Sequence[str]) -> Future[list[str]]:
        """Delete rows, all in one transaction; return the run_ids of those that are gone now. Never an unfinished row."""
        ...

    def save_day(self, day: str, jobs: Sequence[DayOfJob]) -> Future[None]:
        """Replace everything that is known of a day."""
        ...

    def jobs(self) -> dict[str, JobRecord]:
        """Return every job that was ever planned."""
        ...

    def last_occurrences(self, job_ids: Sequence[str], until: datetime | None = None) -> dict[str, datetime]:
        """Return the latest occurrence in the ledger, or the latest up to a moment, of each of the jobs that have one.

        Only times of the job's own rule count (origin `schedule` or `catch_up`).
        """
        ...

    def last_results(self, job_ids: Sequence[str]) -> dict[str, Run]:
        """Return the newest run that was started and has ended of each of the jobs that have one."""
        ...

    def last_successes(self, job_ids: Sequence[str], until: datetime) -> dict[str, Run]:
        """Return the newest success of each of the jobs that have one; none whose `done_through` is later than a moment."""
        ...

    def unfinished(self) -> list[Run]:
        """Return the runs that are queued or running, oldest first."""
        ...

    def history(
        self, job_id: str, limit: int, before: str | None = None, statuses: Sequence[str] | None = None
    ) -> list[Run]:
        """Return at most `limit` rows of a job, newest first; those older than the run `before` when it is given.

        Where there is no such run (any more), those with smaller run_ids take its part.
        """
        ...

    def recent(self, limit: int, before: str | None = None, statuses: Sequence[str] | None = None) -> list[Run]:
        """Return at most `limit` rows of all jobs, newest first, those before the run_id `before` when it is given."""
        ...

    def occurrences(self, job_id: str, since: datetime, limit: int) -> list[Run]:
        """Return at most `limit` rows of occurrences of a job from `since` on, in their order, each with its attempts."""
        ...

    def followed(self, job_id: str, since: datetime) -> set[datetime]:
        """Return the ends of other jobs, from `since` on, that a job was due after (its occurrences of origin `after`)."""
        ...

    def durations(self, job_ids: Sequence[str], limit: int) -> dict[str, list[float]]:
        """Return how many seconds the newest (at most `limit`) successful runs of each job took, of jobs that have some."""
        ...

    def run(self, run_id: str) -> Run | None:
        """Return a run, or None when there is none."""
        ...

    def run_by_key(self, job_id: str, key: str) -> Run | None:
        """Return the run of the job that was asked for with the idempotency key, or None."""
        ...

    def counts(self, since: datetime | None = None, until: datetime | None = None) -> dict[str, int]:
        """Return the number of rows by status, of those that were decided since a moment when one is given.

        With `until`, about up to there: what is dated later by more than a period of the counts (18 minutes) is left out.
        The rows are not counted for it: the numbers are kept with them, in the same transaction.
        """
        ...

    def lateness(self, since: datetime, until: datetime | None = None) -> list[tuple[float, int]]:
        """Return how late the scheduled starts since a moment were: upper bounds in seconds, ascending, and how many.

        `until` is as in `counts`.

        A bound is about 10 % larger than the one before, and the lateness counted in it is above that.
        """
        ...

    def ended_between(self, start: datetime, end: datetime) -> Iterator[Ended]:
        """Yield the rows that ended in [start, end), oldest first.

        Read in pages: a slow reader holds nothing, and sees what ended meanwhile, too.
        """
        ...

    def job_ids(self) -> list[str]:
        """Return every job that has rows, also those that are in no configuration any more."""
        ...

    def needed(self, job_id: str, runs_per_job: int | None, now: datetime) -> NeededRows:
        """Return the rows of a job that retention has to know of, see `NeededRows`."""
        ...

    def statuses(self, run_ids: Sequence[str]) -> dict[str, Status]:
        """Return the status of each of the runs that are in the ledger."""
        ...

    def old_rows(self, job_id: str, after: Position, limit: int) -> list[RetentionRow]:
        """Return at most `limit` rows of a job behind a place, oldest first."""
        ...

    def all_runs(self, after: str, limit: int) -> list[Run]:
        """Return at most `limit` rows of all jobs whose run_ids are larger than `after`, in the order of those."""
        ...

    def days(self) -> list[str]:
        """Return the days that `save_day` wrote, oldest first."""
        ...

    def day(self, day: str) -> list[DayOfJob]:
        """Return what `save_day` wrote of a day, in the order of the jobs."""
        ...

    def daily(self, first: str, last: str, job_id: str | None = None) -> list[DayOfJob]:
        """Return what `save_day` saved of the days from `first` to `last` (YYYY-MM-DD), of one job or all, oldest first."""
        ...

    def close(self) -> None:
        """Write what is waiting, and close. Writes after it fail with StoreError."""
        ...
