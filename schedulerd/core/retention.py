"""Which rows and outputs of the history may go: rules and rows in, decisions out.

Whatever the rules say, these stay: what is not finished; of each job its newest row, its latest occurrence (planning goes
on from it), its newest result (the list of jobs shows it), its last failure and last success unless told otherwise, and
its young occurrences, which are not started again as long as their rows are there (see `claims_kept`); and, for
FOLLOWED_KEPT more, rows that tell which ends of other jobs were followed already.

Newer means recorded later; a clock that was wrong for a while decides neither what is the newest nor, see `ended_at`, that
something is old.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .models import UNFINISHED, Job, Origin, Position, Status, time_of

PLANNED = (Origin.SCHEDULE, Origin.CATCH_UP)
CLOCK_WRONG_FOR = timedelta(days=1)  # so far the clock may be set back, and nothing that was due then is started again
FOLLOWED_FOR = timedelta(days=30)  # an end older than this is not followed any more
FOLLOWED_KEPT = FOLLOWED_FOR + timedelta(days=1)


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """What may stay in the history; None is no bound.

    `older_than` counts from a run's end, `runs_per_job` counts a job's finished rows, newest first. Sizes are of outputs
    as the disk has them, in bytes. What a job's rules planned stays for `claims_kept`, see the function of that name.
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
    """What retention needs to know of a row."""

    run_id: str
    status: Status
    origin: Origin
    finished_at: datetime | None
    sequence: int = 0

    @property
    def position(self) -> Position:
        """Return its place in the order of recording."""
        return self.sequence, self.run_id


@dataclass(frozen=True, slots=True)
class NeededRows:
    """The rows of a job that others need, as run_ids, None where there is no such row.

    Those called `past_…` are not of a later time than now; beside them are the newest whatever their time. `oldest_kept` is
    the place of the oldest of the newest `runs_per_job` finished rows: None when the job has no more than so many.
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
        """Return the run_ids that stay, whatever their age."""
        last = {self.failure} if rules.keeps_last_failure else set()
        last |= {self.success, self.past_success} if rules.keeps_last_success else set()
        return frozenset({self.newest, self.occurrence, self.past_occurrence, self.result, *last})


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """A file with the output of a run, as the disk has it; `is_running`: it may still be written."""

    run_id: str
    size_bytes: int
    written_at: datetime
    is_running: bool = False


def claims_kept(job: Job | None) -> timedelta:
    """Return for how long the occurrences of a job stay: while they could be started late, and a day more.

    Until then a row is what keeps its occurrence from being started twice when the clock is set back. A job that is gone
    has none to be started.
    """
    if job is None:
        return timedelta()
    return CLOCK_WRONG_FOR + timedelta(seconds=max(job.misfire_grace_seconds, job.catch_up_age_seconds))


def expired(rows: Iterable[RetentionRow], needed: NeededRows, rules: RetentionRules, now: datetime) -> list[str]:
    """Return which of a job's rows may go, in their order."""
    stays = needed.stays(rules)
    return [row.run_id for row in rows if row.run_id not in stays and _is_expired(row, needed, rules, now)]


def may_go_on(rows: Sequence[RetentionRow], needed: NeededRows, rules: RetentionRules, now: datetime) -> bool:
    """Return whether rows behind these, which are in the order of recording, may have expired as well.

    Ends are nearly in that order. A run that took long ended late, so one row that is too young says nothing; a whole page
    of them does, unless their clock was ahead.
    """
    return any(_is_expired(row, needed, rules, now) or (row.finished_at or now) > now for row in rows)


def ended_at(row: RetentionRow, now: datetime) -> datetime | None:
    """Return when a run ended, for its age: not before it was recorded, should the clock have been behind then.

    After a clock that was ahead, the time in the sequence is one to come, which says nothing.
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
    """Return how many bytes of output have to go, given those that there are and those that are free on their disk."""
    too_many = total - rules.outputs_size if rules.outputs_size is not None else 0
    too_few_free = rules.min_free - free if rules.min_free is not None else 0
    return max(0, too_many, too_few_free)


def in_order(days: Iterable[str], latest: datetime) -> list[str]:
    """Return days (YYYY-MM-DD) with output, oldest first.

    Those after `latest`, the latest time that it can be now, are of a clock that was ahead: they are not the newest.
    """
    return sorted(days, key=lambda day: (day <= f"{latest:%Y-%m-%d}", day))


def outputs_to_delete(
    outputs: Iterable[StoredOutput], rules: RetentionRules, now: datetime, surplus: int
) -> list[StoredOutput]:
    """Return the outputs that go, oldest first: those too old, and as many as it takes to be rid of `surplus` bytes."""
    before = now - rules.outputs_older_than if rules.outputs_older_than is not None else None
    gone: list[StoredOutput] = []
    for each in sorted(outputs, key=lambda each: (each.written_at, each.run_id)):
        if surplus <= 0 and (before is None or each.written_at >= before):
            break
        if not each.is_running:
            gone.append(each)
            surplus -= each.size_bytes
    return gone
