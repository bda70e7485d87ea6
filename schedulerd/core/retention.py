"""Which rows and outputs of the history may be deleted: rules and rows in, decisions out.

Independent of the rules, these stay: runs that have not ended; of each job its newest row, its latest occurrence (the
planner continues from it), its newest result (shown in the list of jobs), its last failure and last success unless
configured otherwise; young occurrences, which cannot start twice while their rows exist (see `claims_kept`); and for
FOLLOWED_KEPT longer, rows that record which ends of other jobs were followed.

"Newer" means recorded later. A clock that was wrong for some time decides neither which row is the newest nor, by
`ended_at`, which one is old.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .models import UNFINISHED, Job, Origin, Position, Status, time_of

PLANNED = (Origin.SCHEDULE, Origin.CATCH_UP)
CLOCK_WRONG_FOR = timedelta(days=1)  # a clock set back by at most this starts no occurrence twice
FOLLOWED_FOR = timedelta(days=30)  # an older end starts no dependent jobs
FOLLOWED_KEPT = FOLLOWED_FOR + timedelta(days=1)


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """What is kept of the history; None is no limit.

    `older_than` is the age since a run's end, `runs_per_job` the number of finished rows of a job, newest first. Sizes are
    bytes of outputs on disk. Planned occurrences are kept for `claims_kept`, see the function of that name.
    """

    older_than: timedelta | None = None
    runs_per_job: int | None = None
    keeps_last_failure: bool = True
    keeps_last_success: bool = True
    outputs_older_than: timedelta | None = None
    outputs_size: int | None = None
    min_free: int | None = None
    claims_kept: timedelta = CLOCK_WRONG_FOR


@dataclass(frozen=True, slots=True)
class RetentionRow:
    """The columns of a row that retention needs."""

    run_id: str
    status: Status
    origin: Origin
    finished_at: datetime | None
    sequence: int = 0

    @property
    def position(self) -> Position:
        """Return the position of the row in the order of recording."""
        return self.sequence, self.run_id


@dataclass(frozen=True, slots=True)
class NeededRows:
    """The rows of a job that other functions need, as run ids; None where there is none.

    The `past_…` rows are not later than now; the others are the newest, whatever their time. `oldest_kept` is the position
    of the oldest of the newest `runs_per_job` finished rows, None when the job has fewer.
    """

    newest: str | None = None
    occurrence: str | None = None
    past_occurrence: str | None = None
    result: str | None = None
    failure: str | None = None
    success: str | None = None
    past_success: str | None = None
    oldest_kept: Position | None = None

    def stays(self, rules: RetentionRules) -> frozenset[str | None]:
        """Return the run ids that are kept regardless of age."""
        last = {self.failure} if rules.keeps_last_failure else set()
        last |= {self.success, self.past_success} if rules.keeps_last_success else set()
        return frozenset({self.newest, self.occurrence, self.past_occurrence, self.result, *last})


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """The output file of a run, with its size on disk; it may still grow while `is_running`."""

    run_id: str
    size_bytes: int
    written_at: datetime
    is_running: bool = False


def claims_kept(job: Job | None) -> timedelta:
    """Return how long the occurrences of a job are kept: while they can be started late, plus CLOCK_WRONG_FOR.

    During this time the row prevents a second start of its occurrence after the clock is set back. A job that was removed
    has no occurrences to start.
    """
    if job is None:
        return timedelta()
    return CLOCK_WRONG_FOR + timedelta(seconds=max(job.misfire_grace_seconds, job.catch_up_age_seconds))


def expired(rows: Iterable[RetentionRow], needed: NeededRows, rules: RetentionRules, now: datetime) -> list[str]:
    """Return the run ids of a job's rows that may be deleted, in the order of the rows."""
    stays = needed.stays(rules)
    return [row.run_id for row in rows if row.run_id not in stays and _is_expired(row, needed, rules, now)]


def may_go_on(rows: Sequence[RetentionRow], needed: NeededRows, rules: RetentionRules, now: datetime) -> bool:
    """Return whether rows recorded after these may have expired too.

    Runs end nearly in the order of recording. A long run ended late, so one row that is too young proves nothing, but a
    whole page of them does, unless their clock was ahead.
    """
    return any(_is_expired(row, needed, rules, now) or (row.finished_at or now) > now for row in rows)


def ended_at(row: RetentionRow, now: datetime) -> datetime | None:
    """Return when a run ended, for its age: not before it was recorded, in case the clock was behind then.

    After a clock that was ahead, the time in the sequence is in the future and is ignored.
    """
    recorded_at = time_of(row.sequence)
    is_known = row.finished_at is not None and row.finished_at < recorded_at <= now
    return recorded_at if is_known else row.finished_at


def _is_expired(row: RetentionRow, needed: NeededRows, rules: RetentionRules, now: datetime) -> bool:
    at = ended_at(row, now)
    if row.status in UNFINISHED or at is None:
        return False
    if row.origin is Origin.AFTER and at >= now - FOLLOWED_KEPT - (rules.older_than or timedelta()):
        return False
    if row.origin in PLANNED and at >= now - rules.claims_kept:
        return False
    is_old = rules.older_than is not None and at < now - rules.older_than
    is_beyond = needed.oldest_kept is not None and row.position < needed.oldest_kept
    return is_old or is_beyond


def surplus_bytes(total: int, free: int, rules: RetentionRules) -> int:
    """Return how many bytes of output to delete, given the total of outputs and the free space on their disk."""
    too_many = total - rules.outputs_size if rules.outputs_size is not None else 0
    too_few_free = rules.min_free - free if rules.min_free is not None else 0
    return max(0, too_many, too_few_free)


def in_order(days: Iterable[str], latest: datetime) -> list[str]:
    """Return days with output (YYYY-MM-DD), oldest first.

    Days after `latest`, the latest time that it can be now, were written by a clock that was ahead: they count as oldest.
    """
    return sorted(days, key=lambda day: (day <= f"{latest:%Y-%m-%d}", day))


def outputs_to_delete(
    outputs: Iterable[StoredOutput], rules: RetentionRules, now: datetime, surplus: int
) -> list[StoredOutput]:
    """Return the outputs to delete, oldest first: those too old, and as many as free `surplus` bytes."""
    before = now - rules.outputs_older_than if rules.outputs_older_than is not None else None
    gone: list[StoredOutput] = []
    for each in sorted(outputs, key=lambda each: (each.written_at, each.run_id)):
        if surplus <= 0 and (before is None or each.written_at >= before):
            break
        if not each.is_running:
            gone.append(each)
            surplus -= each.size_bytes
    return gone
