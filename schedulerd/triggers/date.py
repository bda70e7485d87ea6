"""Single instants: `at: 2027-01-01T03:00:00`, or a list of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from ..core.errors import TriggerError
from ..core.models import to_text
from .base import Rule
from .timezones import to_instant
from .wallclock import FIXED, Daylight, gap_around

YEARS = range(1900, 2501)
EXPECTED = "expected a date and time such as 2027-01-01T03:00:00 (of the job's zone) or 2027-01-01T03:00:00Z"


@dataclass(frozen=True, slots=True)
class DateTrigger(Rule):
    """Due at each of `instants`, which ascend."""

    instants: tuple[datetime, ...]
    notes: tuple[str, ...] = ()  # by instant: the effect of daylight saving, or ""

    @property
    def kind(self) -> str:
        """Return `date`."""
        return "date"

    @property
    def text(self) -> str:
        """Return the instants."""
        return f"at: {', '.join(map(to_text, self.instants))}"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first of the instants that is strictly later than `instant`."""
        place = bisect_right(self.instants, instant)
        return self.instants[place] if place < len(self.instants) else None

    def reasons(self, at: datetime) -> tuple[str, ...]:
        """Return the effect of daylight saving on an instant."""
        place = bisect_right(self.instants, at) - 1
        return (self.notes[place],) if place < len(self.notes) and self.notes[place] else ()

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many instants are in (after, upto]."""
        return max(0, bisect_right(self.instants, upto) - bisect_right(self.instants, after))


def dates_from(texts: Sequence[object], timezone: str, daylight: Daylight | None) -> DateTrigger:
    """Return the trigger of `at`. A time without a zone is in the job's zone; `daylight` applies as to fixed times of cron.

    Raise TriggerError for a value that is not a time, or when all times lie in gaps that are skipped.
    """
    rule = daylight or FIXED
    found: dict[datetime, str] = {}
    for text in texts:
        found |= _instants(_parsed("at", text), timezone, rule)
    if not found:
        why = "this time does not exist in the job's zone (dst gap: skip): it can never be due" if texts else EXPECTED
        raise TriggerError("at", ", ".join(map(str, texts)) or "[]", why)
    ordered = sorted(found)
    return DateTrigger(tuple(ordered), tuple(found[at] for at in ordered) if any(found.values()) else ())


def _instants(at: datetime, timezone: str, rule: Daylight) -> dict[datetime, str]:
    """Return the instants of a configured time, with the effect of daylight saving."""
    if at.tzinfo is not None:
        return {at.astimezone(UTC): ""}
    gap, first, last = gap_around(timezone, at), to_instant(timezone, at), to_instant(timezone, at, is_end=True)
    if gap is not None:
        note = f"{at:%H:%M:%S} does not exist on {at:%Y-%m-%d}: {gap[0]}, it runs right after the gap"
        return {first: note} if rule.gap_runs else {}
    if first == last:
        return {first: ""}
    twice = "this time occurs twice, this is the first: "
    if not rule.repeat_both:
        return {first: twice + "it is due once"}
    return {first: twice + "both are due", last: "the second pass of a repeated time: dst has repeat: both"}


def instant_from(field: str, text: object, timezone: str, *, is_end: bool = False) -> datetime:
    """Return the instant of a setting such as `not_before`, in UTC. Raise TriggerError."""
    at = _parsed(field, text)
    return at.astimezone(UTC) if at.tzinfo is not None else to_instant(timezone, at, is_end=is_end)


def _parsed(field: str, text: object) -> datetime:
    if isinstance(text, datetime):
        at = text
    elif isinstance(text, date):
        at = datetime(text.year, text.month, text.day)  # noqa: DTZ001 - in the job's zone, which is applied next
    else:
        try:
            at = datetime.fromisoformat(text.strip() if isinstance(text, str) else "")
        except ValueError:
            raise TriggerError(field, str(text), EXPECTED) from None
    if at.year not in YEARS:
        raise TriggerError(field, str(text), f"a year from {YEARS.start} to {YEARS.stop - 1} is expected")
    return at
