"""When a job is due, as values: its occurrences, the contract of a trigger, and what else starts a job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class When(StrEnum):
    """Which results of another job start this one."""

    SUCCESS = "success"
    FAILURE = "failure"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time at which a trigger says that its job is due; (job_id, `scheduled_at`) is its identity.

    `start_at` is when it is to be started: not before `scheduled_at`, and later when jitter, spread or the end of a
    blackout move it. `skipped` says which blackout forbids it; `reasons` tell every rule that had a say.
    """

    scheduled_at: datetime
    start_at: datetime
    reasons: tuple[str, ...] = ()
    skipped: str | None = None


class Trigger(Protocol):
    """Computes the times of a job. Pure: no clock, no I/O; equal triggers give equal times.

    What is decided about is an occurrence; what people ask for is when something starts. Both ascend: of two occurrences
    the later one never starts before the earlier.
    """

    @property
    def kind(self) -> str:
        """Return the `trigger_type` of the API: `cron`, `interval`, `calendar`, `date`, `startup` or `after`."""
        ...

    @property
    def text(self) -> str:
        """Return the whole rule on one line; a job whose text changed is planned anew from that moment."""
        ...

    @property
    def rhythm(self) -> Trigger | None:
        """Return the part that follows elapsed time and goes on when the clock is set back, or None when all is fixed."""
        ...

    @property
    def waits_for_end(self) -> bool:
        """Return whether the next time is counted from the end of the last run (then `next_after` is asked with that)."""
        ...

    @property
    def events(self) -> Events:
        """Return what starts the job besides times."""
        ...

    @property
    def moves_starts(self) -> bool:
        """Return whether an occurrence may start later than it is scheduled."""
        ...

    @property
    def has_blackouts(self) -> bool:
        """Return whether there are times at which nothing may start."""
        ...

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first start strictly later than `instant`, in UTC, or None when there is none."""
        ...

    def occurrence_after(self, scheduled_at: datetime) -> Occurrence | None:
        """Return the first occurrence strictly later than `scheduled_at`, also one that a blackout forbids, or None."""
        ...

    def occurrence_at(self, scheduled_at: datetime) -> Occurrence:
        """Return what the rules make of an occurrence at `scheduled_at`: when it starts, or what forbids it."""
        ...

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many occurrences are later than `after` and not later than `upto`."""
        ...

    def settled_by(self, instant: datetime) -> datetime:
        """Return a time so early that every occurrence up to it starts, or is skipped, by `instant`."""
        ...

    def free_at(self, instant: datetime) -> datetime | None:
        """Return the first moment from `instant` on that is in no blackout; None when there is none."""
        ...

    def explain(self, after: datetime, count: int = 5) -> list[Occurrence]:
        """Return the next `count` occurrences later than `after`, each with the reason when a rule had a say."""
        ...

    def why_not(self, instant: datetime) -> str | None:
        """Return which rule keeps an occurrence from being at `instant`, or None when the rule simply has no time there."""
        ...


@dataclass(frozen=True, slots=True)
class After:
    """The results of other jobs that start a job: all of them, or any, since it was started last."""

    jobs: tuple[str, ...]
    when: When
    needs_all: bool = False

    def __str__(self) -> str:
        """Return the rule in words."""
        names = (" and " if self.needs_all else " or ").join(self.jobs)
        return f"after {names}" + {"success": "", "failure": " failed", "always": ", however it ended"}[self.when]


@dataclass(frozen=True, slots=True)
class Events:
    """What starts a job besides times."""

    at_startup: bool = False
    after: tuple[After, ...] = ()


NO_EVENTS = Events()
