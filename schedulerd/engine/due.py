"""The due jobs that the planner hands over, those that it receives back undecided, and the rows that record decisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from ..core.misfires import OVERDUE, Due, Passed, Start
from ..core.models import MICROSECOND, Job, Origin, Result, Run, Status, finish, new_run_id, to_text

FIRST_PORTION = 50  # jobs
PORTION_GROWTH = 5
CHECK_AGAIN = timedelta(seconds=5)  # after which undecided or unrecorded occurrences are handed over again


@dataclass(frozen=True, slots=True)
class DueJob:
    """A due job: its due occurrences, its next time, and its `origin` when it is not due by its trigger.

    `asks` is set after the clock was set back: the ledger may have occurrences up to that time. `is_again` also means that
    the clock was set back, and that the last occurrences are so long ago that a job which follows elapsed time continues.
    `plan` is the job of the timetable. `is_held` means that these occurrences could not be decided earlier, and that later
    ones have been handed over since. `is_void` means that the job has been planned again since.
    """

    job_id: str
    due: Due
    next_at: datetime | None
    origin: Origin = Origin.SCHEDULE
    details: Mapping[datetime, Mapping[str, Any]] = field(default_factory=dict)  # by occurrence
    is_again: bool = False
    asks: datetime | None = None  # the ledger may have occurrences up to this time
    is_held: bool = False
    is_void: bool = False
    plan: object = field(default=None, compare=False, repr=False)

    @property
    def first(self) -> datetime:
        """Return the time of the first occurrence."""
        return self.due.earlier.first if self.due.earlier else self.due.occurrences[0].scheduled_at

    @property
    def count(self) -> int:
        """Return the number of occurrences."""
        return len(self.due.occurrences) + (self.due.earlier.count if self.due.earlier else 0)

    def left(self, first: datetime, at: datetime) -> Undecided:
        """Return the undecided occurrences, from `first` on, to be handed over again at `at`."""
        return Undecided(self, first - MICROSECOND, at)

    def all_left(self, at: datetime) -> Undecided:
        """Return all occurrences as undecided."""
        return self.left(self.first, at)

    def with_all_of(self, other: DueJob) -> DueJob:
        """Return this due job with the occurrences of another one of the same origin, to be decided together."""
        both = sorted([*self.due.occurrences, *other.due.occurrences], key=lambda each: each.scheduled_at)
        return replace(self, due=Due(both), details={**self.details, **other.details})

    def later_than(self, after: datetime) -> DueJob:
        """Return this due job with only the occurrences later than `after`."""
        earlier = self.due.earlier if self.due.earlier is not None and self.due.earlier.first > after else None
        left = [each for each in self.due.occurrences if each.scheduled_at > after]
        return replace(self, due=Due(left, earlier, self.due.cause))

    def before(self, first: datetime) -> DueJob:
        """Return this due job with only the occurrences before `first`."""
        left = [each for each in self.due.occurrences if each.scheduled_at < first]
        return replace(self, due=replace(self.due, occurrences=left))


@dataclass(frozen=True, slots=True)
class Undecided:
    """A due job whose occurrences later than `after` are undecided, to be handed over again at `at`."""

    each: DueJob
    after: datetime
    at: datetime


def new_run(job_id: str, origin: Origin, now: datetime, scheduled_at: datetime | None, node: str) -> Run:
    """Return the row of a run that may start immediately."""
    return Run(new_run_id(now), job_id, origin, Status.RUNNING, now, scheduled_at, node=node)


def not_started(run: Run, status: Status, why: str, details: Mapping[str, Any]) -> Run:
    """Return the row of an occurrence that is not started."""
    return finish(run, Result(status, message=why, details=details), run.queued_at, None)


def passed_run(passed: Passed, each: DueJob, now: datetime, node: str) -> Run:
    """Return the row of occurrences that are skipped or missed: one row for all, at the time of the last one."""
    gap = passed.gap
    details: dict[str, Any] = {**each.details.get(gap.last, {}), "reason": passed.why}
    if passed.window is not None:
        details["window"] = passed.window
    if gap.count > 1 or passed.status is Status.MISSED:
        details |= {"first": to_text(gap.first), "last": to_text(gap.last), "count": gap.count}
    if each.due.cause is not None and passed.status is Status.MISSED:
        details["cause"] = each.due.cause
    return not_started(new_run(each.job_id, each.origin, now, gap.last, node), passed.status, str(passed), details)


def details_of(job: Job, start: Start, each: DueJob, now: datetime) -> dict[str, Any]:
    """Return the details of a run that starts: the runs that it follows, the rules of its time, and why it is late."""
    details = {**each.details.get(start.scheduled_at, {})}
    rules = start.occurrence.reasons
    if not rules and job.trigger is not None and each.origin is Origin.SCHEDULE:
        rules = job.trigger.occurrence_at(start.scheduled_at).reasons
    if rules:
        details["rules"] = list(rules)
    if each.due.cause is not None and now - start.occurrence.start_at > OVERDUE:
        details["cause"] = each.due.cause
    return details


def together(batch: list[DueJob]) -> list[DueJob]:
    """Return the due jobs, with the single occurrences of a job merged, as for occurrences of its trigger."""
    found: dict[tuple[str, Origin, int | None], DueJob] = {}
    for each in batch:
        key = each.job_id, each.origin, id(each) if each.is_held else None
        found[key] = found[key].with_all_of(each) if key in found else each
    return list(found.values())


def portions(batch: list[DueJob]) -> Iterator[list[DueJob]]:
    """Yield the due jobs in growing portions. The first ones start while others are decided, with few commits."""
    at, size = 0, FIRST_PORTION
    while at < len(batch):
        yield batch[at : at + size]
        at, size = at + size, size * PORTION_GROWTH
