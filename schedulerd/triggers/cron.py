"""Cron expressions, with Debian cron's rules, in any time zone.

The rules are those of cron(8) and crontab(5) of Debian's cron 3.0pl1:

- day of month and weekday: when both are restricted (neither starts with `*`), a day that matches either is due;
- daylight saving: a job at fixed times (neither its minute nor its hour starts with `*`) runs once right after the gap
  that swallowed its time, and once in a repeated hour; a job with a wildcard there follows elapsed time.

Fields are bit masks, days are ordinals and times are integer seconds, because a daemon with 10,000 jobs asks often.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from ..errors import TriggerError
from .zones import Stretch, stretch_at, zone_named

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
LONGEST_GAP_YEARS = 40  # 29 February on a given weekday comes this often, even over 2100, which is no leap year

_DAY = 86_400
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, MONTHS),
    _Field("weekday", 0, 7, WEEKDAYS),
)


@dataclass(frozen=True, slots=True)
class CronTrigger:
    """A cron expression of five fields, or one of cron's `@` words, in a time zone."""

    expression: str
    timezone: str = "UTC"
    _minutes: int = field(init=False, repr=False, compare=False)
    _hours: int = field(init=False, repr=False, compare=False)
    _days: int = field(init=False, repr=False, compare=False)
    _months: int = field(init=False, repr=False, compare=False)
    _weekdays: int = field(init=False, repr=False, compare=False)
    _either_day: bool = field(init=False, repr=False, compare=False)
    _is_fixed: bool = field(init=False, repr=False, compare=False)
    _month_days: dict[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Parse. Raise TriggerError when the text is no cron expression or can never be due."""
        zone_named(self.timezone)
        texts = _split(self.expression)
        minutes, hours, days, months, weekdays = (
            _parse_field(spec, text, self.expression) for spec, text in zip(_FIELDS, texts, strict=True)
        )
        weekdays = (weekdays | weekdays >> 7) & 0x7F  # 7 is Sunday too
        either = not texts[2].startswith("*") and not texts[4].startswith("*")
        if not either:
            _refuse_impossible(days, months, self.expression)
        for name, value in (
            ("_minutes", minutes),
            ("_hours", hours),
            ("_days", days),
            ("_months", months),
            ("_weekdays", weekdays),
            ("_either_day", either),
            ("_is_fixed", not texts[0].startswith("*") and not texts[1].startswith("*")),
            ("_month_days", {}),
        ):
            object.__setattr__(self, name, value)

    @property
    def kind(self) -> str:
        """Return `cron`."""
        return "cron"

    @property
    def text(self) -> str:
        """Return the expression and its zone."""
        return f"cron: {self.expression} {self.timezone}"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first due time strictly later than `instant`.

        Walks the zone's stretches of constant offset. Entering one, `low` is the first local second that has not been
        dealt with: after a gap, a fixed time that was swallowed is due at once; after a repeat, fixed times wait until
        the repeated local time has passed.
        """
        second = int(instant.timestamp() // 1) + 1
        last = second + LONGEST_GAP_YEARS * 366 * _DAY
        stretch = stretch_at(self.timezone, second)
        low = max(second + stretch.offset, self._repeated_until(stretch)) if self._is_fixed else second + stretch.offset
        if self._is_fixed and second == stretch.start and self._was_swallowed(stretch):
            return datetime.fromtimestamp(second, UTC)
        while stretch.start < last:
            found = self._next_local(low, stretch.end + stretch.offset)
            if found is not None:
                return datetime.fromtimestamp(found - stretch.offset, UTC)
            stretch = stretch_at(self.timezone, stretch.end)
            low = stretch.start + stretch.offset
            if self._is_fixed:
                if self._was_swallowed(stretch):
                    return datetime.fromtimestamp(stretch.start, UTC)
                low = max(low, self._repeated_until(stretch))
        return None

    def _was_swallowed(self, stretch: Stretch) -> bool:
        """Return whether a due local time lies in the gap that ends where `stretch` starts."""
        before = stretch_at(self.timezone, stretch.start - 1)
        if before.offset >= stretch.offset:
            return False
        gap = stretch.start + before.offset
        return self._next_local(gap, stretch.start + stretch.offset) is not None

    def _repeated_until(self, stretch: Stretch) -> int:
        """Return the local second at which `stretch` stops repeating what its forerunner already showed."""
        before = stretch_at(self.timezone, stretch.start - 1)
        return stretch.start + max(before.offset, stretch.offset)

    def _next_local(self, low: int, high: int) -> int | None:
        """Return the first matching local second in [low, high), or None."""
        day, second = divmod(low, _DAY)
        minute = -(-second // 60)  # the next whole minute
        last_day = (high - 1) // _DAY
        while True:
            found = self._next_day(day, last_day)
            if found is None:
                return None
            minute = minute if found == day else 0
            time = self._next_time(minute)
            if time is not None:
                local = found * _DAY + time * 60
                return local if local < high else None
            day, minute = found + 1, 0

    def _next_time(self, minute: int) -> int | None:
        """Return the first matching minute of the day that is not before `minute`, or None."""
        hour, minute = divmod(minute, 60)
        if self._hours >> hour & 1:
            later = self._minutes >> minute
            if later:
                return hour * 60 + minute + _lowest_bit(later)
        later = self._hours >> hour + 1
        if not later:
            return None
        return (hour + 1 + _lowest_bit(later)) * 60 + _lowest_bit(self._minutes)

    def _next_day(self, day: int, last_day: int) -> int | None:
        """Return the first matching day (days since 1970) in [day, last_day], or None."""
        while day <= last_day:
            today = date.fromordinal(day + _EPOCH_ORDINAL)
            later = self._days_of(today.year, today.month) >> today.day
            if later:
                found = day + _lowest_bit(later)
                return found if found <= last_day else None
            day += monthrange(today.year, today.month)[1] - today.day + 1
        return None

    def _days_of(self, year: int, month: int) -> int:
        """Return the matching days of a month as a mask; bit 1 is the first."""
        key = year * 12 + month
        mask = self._month_days.get(key)
        if mask is None:
            if len(self._month_days) > 24:  # a year or two are enough to remember
                self._month_days.clear()
            mask = self._month_days[key] = self._days_made(year, month)
        return mask

    def _days_made(self, year: int, month: int) -> int:
        if not self._months >> month & 1:
            return 0
        first_weekday, length = monthrange(year, month)  # Monday is 0 there, Sunday is 0 in cron
        by_weekday = sum(1 << day for day in range(1, length + 1) if self._weekdays >> (first_weekday + day) % 7 & 1)
        by_date = self._days & (1 << length + 1) - 2
        return by_date | by_weekday if self._either_day else by_date & by_weekday


def _lowest_bit(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _split(expression: str) -> list[str]:
    text = expression.strip().lower()
    if text.startswith("@"):
        if text not in MACROS:
            raise TriggerError("cron", expression, f"the words with @ are {', '.join(MACROS)}")
        text = MACROS[text]
    texts = text.split()
    if len(texts) != len(_FIELDS):
        wanted = "minute hour day-of-month month weekday"
        raise TriggerError("cron", expression, f"five fields are needed ({wanted}), there are {len(texts)}")
    return texts


def _parse_field(spec: _Field, text: str, expression: str) -> int:
    mask = 0
    for part in text.split(","):
        mask |= _parse_part(spec, part, expression)
    return mask


def _parse_part(spec: _Field, part: str, expression: str) -> int:
    base, slash, step_text = part.partition("/")
    if slash and not (re.fullmatch(r"[0-9]{1,4}", step_text) and int(step_text) > 0):
        raise TriggerError("cron", expression, f"the step in {spec.name} {part!r} must be a whole number above 0")
    step = int(step_text) if slash else 1
    if base == "*":
        low, high = spec.low, min(spec.high, 6) if spec.names is WEEKDAYS else spec.high
    else:
        first, dash, last = base.partition("-")
        low = _parse_value(spec, first, expression)
        high = _parse_value(spec, last, expression) if dash else (spec.high if slash else low)
        if high < low:
            raise TriggerError("cron", expression, f"the range {base!r} in {spec.name} runs backwards")
    return sum(1 << value for value in range(low, high + 1, step))


def _parse_value(spec: _Field, text: str, expression: str) -> int:
    if text in spec.names:
        return spec.names.index(text) + (1 if spec.names is MONTHS else 0)
    if not re.fullmatch(r"[0-9]{1,4}", text):
        known = f" or a name ({', '.join(spec.names)})" if spec.names else ""
        raise TriggerError("cron", expression, f"{text!r} is no {spec.name}: expected a number{known}, or *")
    value = int(text)
    if not spec.low <= value <= spec.high:
        raise TriggerError("cron", expression, f"{spec.name} {value} is outside {spec.low} to {spec.high}")
    return value


def _refuse_impossible(days: int, months: int, expression: str) -> None:
    for month in range(1, 13):
        if months >> month & 1 and days & (1 << _LONGEST_MONTH[month - 1] + 1) - 2:
            return
    raise TriggerError("cron", expression, "no month that it names has such a day: it can never be due")
