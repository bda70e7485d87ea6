"""The store: the ledger of occurrences, which is also the history of runs.

The protocols are split by use. Code that needs one part of the store annotates that part alone:

| protocol          | use                                                                             |
|-------------------|---------------------------------------------------------------------------------|
| `StoreState`      | whether the store can be written now, and what an operator must do about it     |
| `Ledger`          | record decisions, starts and ends; read back what a restart needs               |
| `History`         | read runs for callers: pages, newest results, counts, lateness                  |
| `Maintenance`     | what retention and `db copy` read and delete                                    |
| `DailyStatistics` | what `analytics` reads and writes                                               |

`Store` is all of them. `tests/store/test_contract.py` tests every backend against it. A write returns at once with a future
that completes when the change is durable; a caller that needs durability waits for it (`durable`). A write whose future
fails with StoreError has changed nothing (but see `Ledger.record`). A read is a plain call: it returns everything whose
future has completed, and never waits for the writer.

Newer and older refer to the order of recording (see `sequences.py`), never to clocks.
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
    """Wait until a write is durable and return its result. Raise StoreError after `seconds`."""
    try:
        return write.result(seconds)
    except TimeoutError:
        raise StoreError(f"the store has not been written for {seconds:g} s (is its disk full?)") from None


@dataclass(frozen=True, slots=True)
class DailyFigures:
    """The statistics of one job for one day."""

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
    timezone: str | None = None  # the time zone of the day; None: unknown, the row is from before it was recorded


@dataclass(frozen=True, slots=True)
class EndedRun:
    """The part of a finished run that `analytics` needs."""

    job_id: str
    status: str
    duration_seconds: float | None
    lateness_seconds: float | None
    records_processed: int
    output_bytes: int = 0


class StoreState(Protocol):
    """Whether the store can be written now, and what an operator must do about it."""

    @property
    def trouble(self) -> str | None:
        """Return why writes are waiting (disk full, server down), or None."""
        ...

    @property
    def accepts_runs(self) -> bool:
        """Return whether new runs can be recorded now: in the ledger or, during an outage, in the outage journal."""
        ...

    @property
    def ends_in_memory(self) -> int:
        """Return how many ends of runs are in memory only, because neither ledger nor outage journal can be written."""
        ...

    @property
    def backlog(self) -> Backlog:
        """Return how much the outage journal holds that is not in the ledger yet."""
        ...

    @property
    def alarm(self) -> str | None:
        """Return what an operator must do although the store works (a damaged history was set aside), or None."""
        ...


class Ledger(StoreState, Protocol):
    """Record decisions, starts and ends of runs; read back what a restart needs."""

    def numbered(self, run: Run) -> Run:
        """Return a new run with its sequence. `record` and `finish` number the runs that have none."""
        ...

    def record(self, runs: Sequence[Run], asks: bool = False) -> Future[frozenset[str]]:
        """Enter rows into the ledger in one transaction. The result is the run_ids that are in the ledger afterwards.

        A run whose occurrence (job_id, scheduled_at, attempt) or idempotency key is in the ledger already is left out and
        is not in the result. To record the same run twice has the effect of once.

        Fails with StoreAwayError when the rows cannot be written now, with PartWrittenError when that holds for some of
        them; the caller may record those again. During an outage the outage journal replies from its own content alone.
        `asks` forbids that, because the ledger may already have these occurrences or this key.
        """
        ...

    def claim(self, run_id: str) -> Future[bool]:
        """Change a `queued` run to `running` in order to start it. False when it is not queued any more."""
        ...

    def finish(self, runs: Sequence[Run], then: Sequence[Run] = ()) -> Future[frozenset[str]]:
        """Write how runs ended (status, times, exit code, records, message, details). The first recorded end wins.

        A run without a row is entered with its end: an older history may have been restored meanwhile.

        `then` are rows that follow from these ends. They are entered as by `record`, in the same transaction. The result
        is the run_ids of those that are in the ledger afterwards.
        """
        ...

    def save_jobs(self, records: Sequence[JobRecord]) -> Future[None]:
        """Save rule and planned_since of jobs. Their pauses are not changed."""
        ...

    def set_pause(self, job_id: str, pause: Pause | None) -> Future[None]:
        """Pause a job that `save_jobs` has saved, or resume it (None)."""
        ...

    def jobs(self) -> dict[str, JobRecord]:
        """Return every job that was ever planned."""
        ...

    def unfinished(self) -> list[Run]:
        """Return the runs that are queued or running, oldest first."""
        ...

    def last_occurrences(self, job_ids: Sequence[str], until: datetime | None = None) -> dict[str, datetime]:
        """Return the latest occurrence in the ledger, or the latest up to `until`, of each job that has one.

        Only occurrences of the job's own trigger count (origin `schedule` or `catch_up`).
        """
        ...

    def followed(self, job_id: str, since: datetime) -> set[datetime]:
        """Return the ends of other jobs, from `since` on, that made a job due (its occurrences of origin `after`)."""
        ...


class History(Protocol):
    """Read runs for callers."""

    def run(self, run_id: str) -> Run | None:
        """Return a run, or None when there is no such run."""
        ...

    def run_by_key(self, job_id: str, key: str) -> Run | None:
        """Return the run of the job that was requested with the idempotency key, or None."""
        ...

    def history(
        self, job_id: str, limit: int, before: str | None = None, statuses: Sequence[str] | None = None
    ) -> list[Run]:
        """Return at most `limit` rows of a job, newest first; with `before`, only rows older than that run.

        When the run `before` does not exist (any more), rows with smaller run_ids are returned.
        """
        ...

    def recent(self, limit: int, before: str | None = None, statuses: Sequence[str] | None = None) -> list[Run]:
        """Return at most `limit` rows of all jobs, newest first; `before` as in `history`."""
        ...

    def occurrences(self, job_id: str, since: datetime, limit: int) -> list[Run]:
        """Return at most `limit` rows of the occurrences of a job from `since` on, by occurrence and attempt."""
        ...

    def last_results(self, job_ids: Sequence[str]) -> dict[str, Run]:
        """Return the newest run that was started and has ended, of each job that has one."""
        ...

    def last_successes(self, job_ids: Sequence[str], until: datetime) -> dict[str, Run]:
        """Return the newest success of each job that has one, without those whose `done_through` is after `until`."""
        ...

    def durations(self, job_ids: Sequence[str], limit: int) -> dict[str, list[float]]:
        """Return the durations in seconds of the newest successful runs of each job, at most `limit` of each."""
        ...

    def counts(self, since: datetime | None = None, until: datetime | None = None) -> dict[str, int]:
        """Return the number of rows by status; with `since`, of rows that were decided from then on.

        `until` is approximate: rows of a counting period (18 minutes) that begins after it are left out. The counters are
        updated in the transaction that writes the rows, so no rows are read.
        """
        ...

    def lateness(self, since: datetime, until: datetime | None = None) -> list[tuple[float, int]]:
        """Return a histogram of the lateness of scheduled starts from `since` on: (upper bound in seconds, count).

        Bounds ascend by about 10 %; each class is above the bound before it. `until` is as in `counts`.
        """
        ...


class Maintenance(StoreState, Protocol):
    """What retention and `schedulerctl db copy` read and delete."""

    def job_ids(self) -> list[str]:
        """Return every job that has rows, including jobs that no configuration defines any more."""
        ...

    def needed(self, job_id: str, runs_per_job: int | None, now: datetime) -> NeededRows:
        """Return the rows of a job that retention must keep; see `NeededRows`."""
        ...

    def statuses(self, run_ids: Sequence[str]) -> dict[str, Status]:
        """Return the status of each run that is in the ledger."""
        ...

    def old_rows(self, job_id: str, after: Position, limit: int) -> list[RetentionRow]:
        """Return at most `limit` rows of a job after a place in the order of recording, oldest first."""
        ...

    def all_runs(self, after: str, limit: int) -> list[Run]:
        """Return at most `limit` rows of all jobs whose run_ids are larger than `after`, by run_id."""
        ...

    def delete_runs(self, run_ids: Sequence[str]) -> Future[list[str]]:
        """Delete finished rows in one transaction. The result is the run_ids that were deleted."""
        ...


class DailyStatistics(Protocol):
    """What `analytics` reads and writes."""

    def ended_between(self, start: datetime, end: datetime) -> Iterator[EndedRun]:
        """Yield the rows that ended in [start, end), oldest first.

        Read in pages: a slow reader holds no lock, and also gets the rows that end meanwhile.
        """
        ...

    def save_day(self, day: str, jobs: Sequence[DailyFigures]) -> Future[None]:
        """Replace all figures of a day."""
        ...

    def days(self) -> list[str]:
        """Return the days that have figures, oldest first."""
        ...

    def day(self, day: str) -> list[DailyFigures]:
        """Return the figures of a day, by job_id."""
        ...

    def daily(self, first: str, last: str, job_id: str | None = None) -> list[DailyFigures]:
        """Return the figures of the days `first` to `last` (YYYY-MM-DD), of one job or of all, oldest first."""
        ...


class Store(Ledger, History, Maintenance, DailyStatistics, Protocol):
    """All parts of a store."""

    def close(self) -> None:
        """Write what is waiting, and close. Later writes fail with StoreError."""
        ...
