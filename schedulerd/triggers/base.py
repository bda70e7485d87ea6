"""The base class of triggers, which derives everything from `next_after`; and sets of small numbers as bit masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime

from ..core.trigger import NO_EVENTS, Events, Occurrence


class Rule(ABC):
    """A trigger without adjustments: an occurrence starts when it is scheduled. See `core.trigger.Trigger`."""

    __slots__ = ()

    @property
    @abstractmethod
    def kind(self) -> str:
        """Return the `trigger_type` of the API."""

    @property
    @abstractmethod
    def text(self) -> str:
        """Return the whole rule on one line."""

    @property
    def rhythm(self) -> Rule | None:
        """Return the part that follows elapsed time."""
        return None

    @property
    def waits_for_end(self) -> bool:
        """Return whether times are counted from the end of the last run."""
        return False

    @property
    def events(self) -> Events:
        """Return the events that start the job."""
        return NO_EVENTS

    @property
    def moves_starts(self) -> bool:
        """Return whether an occurrence may start later than it is scheduled."""
        return False

    @property
    def has_blackouts(self) -> bool:
        """Return whether there are blackouts."""
        return False

    @abstractmethod
    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first time strictly later than `instant`, in UTC, or None."""

    def occurrence_after(self, scheduled_at: datetime) -> Occurrence | None:
        """Return the first occurrence strictly later than `scheduled_at`, or None."""
        at = self.next_after(scheduled_at)
        return None if at is None else Occurrence(at, at)

    def occurrence_at(self, scheduled_at: datetime) -> Occurrence:
        """Return an occurrence with the reasons for its time."""
        return Occurrence(scheduled_at, scheduled_at, self.reasons(scheduled_at))

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many occurrences are in (after, upto], by enumeration; subclasses calculate it where possible."""
        number = 0
        at = self.next_after(after)
        while at is not None and at <= upto:
            number += 1
            at = self.next_after(at)
        return number

    def settled_by(self, instant: datetime) -> datetime:
        """Return `instant`: an occurrence starts when it is scheduled."""
        return instant

    def free_at(self, instant: datetime) -> datetime | None:
        """Return `instant`: there are no blackouts."""
        return instant

    def reasons(self, at: datetime) -> tuple[str, ...]:
        """Return what affected the occurrence at `at`, such as daylight saving."""
        return ()

    def why_not(self, instant: datetime) -> str | None:
        """Return the rule that prevents an occurrence at `instant`, or None."""
        return None

    def explain(self, after: datetime, count: int = 5) -> list[Occurrence]:
        """Return the next `count` occurrences with the reasons for their times."""
        occurrences: list[Occurrence] = []
        found = self.occurrence_after(after)
        while found is not None and len(occurrences) < count:
            occurrences.append(self.occurrence_at(found.scheduled_at))
            found = self.occurrence_after(found.scheduled_at)
        return occurrences


def lowest_bit(mask: int) -> int:
    """Return the lowest member of a non-empty set of small numbers, stored as the bits of `mask`."""
    return (mask & -mask).bit_length() - 1


def bits_below(mask: int, bit: int) -> int:
    """Return how many members of a set, stored as the bits of `mask`, are below `bit`."""
    return (mask & (1 << bit) - 1).bit_count()
