"""The contract of triggers: occurrences, the `Trigger` protocol, and events that start a job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class When(StrEnum):
    """Which outcomes of another job start this one."""

    SUCCESS = "success"
    FAILURE = "failure"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One instant at which a trigger makes its job due; (job_id, `scheduled_at`) identifies it.

    `start_at` is when it starts: `scheduled_at`, or later by jitter, spread or the end of a blackout. `skipped` names the
    blackout that forbids the start; `reasons` lists all rules that had an effect.
    """

    scheduled_at: datetime
    start_at: datetime
    reasons: tuple[str, ...] = ()
    skipped: str | None = None


class Trigger(Protocol):
    """Computes the occurrences of a job. Pure: no clock and no I/O; equal triggers give equal times.

    Both scheduled times and starts ascend: of two occurrences, the later one never starts before the earlier.
    """

    @property
    def kind(self) -> str:
        """Return the `trigger_type` of the API: `cron`, `interval`, `calendar`, `date`, `startup` or `after`."""
        ...

    @property
    def text(self) -> str:
        """Return the whole rule on one line; a job whose text has changed is planned anew from that moment."""
        ...

    @property
    def rhythm(self) -> Trigger | None:
        """Return the part that follows elapsed time and continues when the clock is set back, or None."""
        ...

    @property
    def waits_for_end(self) -> bool:
        """Return whether times are counted from the end of the last run, which is then passed to `next_after`."""
        ...

    @property
    def events(self) -> Events:
        """Return the events that start the job."""
        ...

    @property
    def moves_starts(self) -> bool:
        """Return whether an occurrence may start later than it is scheduled."""
        ...

    @property
    def has_blackouts(self) -> bool:
        """Return whether there are blackouts."""
        ...

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first start strictly later than `instant`, in UTC, or None."""
        ...

    def occurrence_after(self, scheduled_at: datetime) -> Occurrence | None:
        """Return the first occurrence strictly later than `scheduled_at`, including one in a blackout, or None."""
        ...

    def occurrence_at(self, scheduled_at: datetime) -> Occurrence:
        """Return the occurrence at `scheduled_at` with its start, its blackout and its reasons."""
        ...

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many occurrences are later than `after` and not later than `upto`."""
        ...

    def settled_by(self, instant: datetime) -> datetime:
        """Return a time such that each occurrence up to it starts, or is skipped, by `instant`."""
        ...

    def free_at(self, instant: datetime) -> datetime | None:
        """Return the first moment from `instant` on outside all blackouts, or None."""
        ...

    def explain(self, after: datetime, count: int = 5) -> list[Occurrence]:
        """Return the next `count` occurrences later than `after`, with the reasons for their times."""
        ...

    def why_not(self, instant: datetime) -> str | None:
        """Return the rule that prevents an occurrence at `instant`; None when the trigger has no time there."""
        ...


@dataclass(frozen=True, slots=True)
class After:
    """Ends of other jobs that start a job: of all of them, or of any, since its last start."""

    jobs: tuple[str, ...]
    when: When
    needs_all: bool = False

    def __str__(self) -> str:
        """Return the dependency for display."""
        names = (" and " if self.needs_all else " or ").join(self.jobs)
        return f"after {names}" + {"success": "", "failure": " failed", "always": ", however it ended"}[self.when]


@dataclass(frozen=True, slots=True)
class Events:
    """The events that start a job in addition to times."""

    at_startup: bool = False
    after: tuple[After, ...] = ()


NO_EVENTS = Events()
