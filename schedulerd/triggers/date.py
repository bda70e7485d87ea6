"""Single instants: `at: 2027-01-01T03:00:00`, or a list of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from ..errors import TriggerError
from ..model import to_text
from ..zones import FIRST_YEAR, LAST_YEAR, to_instant
from .rule import Rule
from .wallclock import FIXED, Daylight, gap_around

EXPECTED = "expected a date and time such as 2027-01-01T03:00:00 (of the job's zone) or 2027-01-01T03:00:00Z"


@dataclass(frozen=True, slots=True)
class DateTrigger(Rule):
    """Due at each of `instants`, which ascend."""

    instants: tuple[datetime, ...]

    @property
    def kind(self) -> str:
        """Return `date`."""
        return "date"

    @property
    def text(self) -> str:
        """Return the instants."""
        return f"at: {', '.join(map(to_text, self.instants))}"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first of the instants that is strictly later."""
        place = bisect_right(self.instants, instant)
        return self.instants[place] if place < len(self.instants) else None

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many instants are in (after, upto]."""
        return max(0, bisect_right(self.instants, upto) - bisect_right(self.instants, after))


def dates_from(texts: Sequence[object], timezone: str, daylight: Daylight | None) -> DateTrigger:
    """Return the trigger of `at`. A time without a zone is one of the job's; `daylight` decides as for cron's fixed times.

    Raise TriggerError for what is no time, or when every time lies in a gap that is skipped.
    """
    rule = daylight or FIXED
    found: set[datetime] = set()
    for text in texts:
        naive = _parsed("at", text)
        if naive.tzinfo is not None:
            found.add(naive.astimezone(UTC))
        elif rule.gap_runs or gap_around(timezone, naive) is None:
            found.add(to_instant(timezone, naive))
            if rule.repeat_both:
                found.add(to_instant(timezone, naive, is_end=True))
    if not found:
        why = "this time does not exist in the job's zone (dst gap: skip): it can never be due" if texts else EXPECTED
        raise TriggerError("at", ", ".join(map(str, texts)), why)
    return DateTrigger(tuple(sorted(found)))


def instant_from(field: str, text: object, timezone: str, *, is_end: bool = False) -> datetime:
    """Return the instant that a setting such as `not_before` names, in UTC. Raise TriggerError."""
    at = _parsed(field, text)
    return at.astimezone(UTC) if at.tzinfo is not None else to_instant(timezone, at, is_end=is_end)


def _parsed(field: str, text: object) -> datetime:
    if isinstance(text, datetime):
        at = text
    elif isinstance(text, date):
        at = datetime(text.year, text.month, text.day)  # noqa: DTZ001 - of the job's zone, which is looked at next
    else:
        try:
            at = datetime.fromisoformat(text.strip() if isinstance(text, str) else "")
        except ValueError:
            raise TriggerError(field, str(text), EXPECTED) from None
    if not FIRST_YEAR < at.year < LAST_YEAR:
        raise TriggerError(field, str(text), f"a year from {FIRST_YEAR + 1} to {LAST_YEAR - 1} is expected")
    return at
