"""Cron expressions with the rules of Debian's cron, in any time zone.

An expression has five fields, or six with the seconds first. The rules are those of cron(8) and crontab(5) of Debian's
cron 3.0pl1:

- Day of month and weekday: when both are restricted (neither starts with `*`), a day that matches either is due.
- Daylight saving: a job at fixed times (neither its minute nor its hour starts with `*`) runs once, right after the gap
  that contains its time, and once in a repeated hour. A job with a wildcard there follows elapsed time.

In addition: `L` (the last day of the month), `LW` (its last day from Monday to Friday), `5L` (its last Friday) and
`mon#2` (its second Monday), as in Quartz and cronsim.

Fields are bit masks, days are ordinals and times are integer seconds, for speed with 10,000 jobs.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

from ..core.errors import TriggerError
from .base import bits_below, lowest_bit
from .timezones import EPOCH_ORDINAL, zone_named
from .wallclock import FIXED, WILDCARD, Daylight, WallClockRule

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

_SPECIAL = {
    "day of month": ", L (the last day), LW (the last one from Monday to Friday)",
    "weekday": ", 5L (the last Friday), mon#2 (the second Monday, up to #5)",
}
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_CACHED = 24  # months


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_SECOND = _Field("second", 0, 59)
_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, MONTHS),
    _Field("weekday", 0, 7, WEEKDAYS),
)


@dataclass(frozen=True, slots=True)
class _CronDays:
    """The matching days: masks of dates and weekdays, and special days of a month."""

    dates: int
    weekdays: int
    months: int
    either: bool  # both are restricted: a day that matches either is due
    last: bool = False  # L
    last_workday: bool = False  # LW
    last_weekdays: int = 0  # 5L
    nth_weekdays: tuple[tuple[int, int], ...] = ()  # mon#2 as (weekday, nth)
    _masks: dict[int, int] = field(default_factory=dict, compare=False)  # by month: a cache

    def in_month(self, year: int, month: int) -> int:
        """Return the matching days of a month as a mask; bit 1 is the first day."""
        key = year * 12 + month
        mask = self._masks.get(key)
        if mask is None:
            if len(self._masks) >= _CACHED:
                self._masks.clear()
            is_named = self.months >> month & 1
            mask = self._masks[key] = self.of_month(*monthrange(year, month)) if is_named else 0
        return mask

    def next(self, day: int, last: int) -> int | None:
        """Return the first matching day (since 1970) in [day, last], or None."""
        while day <= last:
            today = date.fromordinal(day + EPOCH_ORDINAL)
            later = self.in_month(today.year, today.month) >> today.day
            if later:
                found = day + lowest_bit(later)
                return found if found <= last else None
            day += self._to_next_month(today)
        return None

    def _to_next_month(self, today: date) -> int:
        """Return the number of days from `today` to the first day of the next matching month."""
        later = self.months >> today.month + 1
        year, month = (today.year, today.month + 1 + lowest_bit(later)) if later else (
            today.year + 1, lowest_bit(self.months)
        )  # fmt: skip
        return date(year, month, 1).toordinal() - today.toordinal()

    def count(self, first: int, last: int) -> int:
        """Return how many days in [first, last) match."""
        number = 0
        while first < last:
            start = date.fromordinal(first + EPOCH_ORDINAL)
            in_range = min(last - first, monthrange(start.year, start.month)[1] - start.day + 1)
            number += (self.in_month(start.year, start.month) >> start.day & (1 << in_range) - 1).bit_count()
            first += in_range
        return number

    def of_month(self, first_weekday: int, length: int) -> int:
        """Return the matching days of a month as a mask; bit 1 is the first day, with the given weekday (Monday is 0)."""
        by_date = self.dates
        if self.last:
            by_date |= 1 << length
        if self.last_workday:
            by_date |= 1 << length - max(0, (first_weekday + length - 1) % 7 - 4)
        by_weekday = 0
        for day in range(1, length + 1):
            weekday = (first_weekday + day) % 7  # Sunday is 0
            if (
                self.weekdays >> weekday & 1
                or (self.last_weekdays >> weekday & 1 and day + 7 > length)
                or (self.nth_weekdays and (weekday, (day + 6) // 7) in self.nth_weekdays)
            ):
                by_weekday |= 1 << day
        days = by_date | by_weekday if self.either else by_date & by_weekday
        return days & (1 << length + 1) - 2

    def are_possible(self) -> bool:
        """Return whether any day of any year matches."""
        months = [month for month in range(1, 13) if self.months >> month & 1]
        lengths = {length for month in months for length in {_LONGEST_MONTH[month - 1], 28 if month == 2 else 0} if length}
        return any(self.of_month(first, length) for length in lengths for first in range(7))


@dataclass(frozen=True, slots=True)
class _CronTimes:
    """The matching seconds of a day, as masks."""

    hours: int
    minutes: int
    seconds: int

    def next(self, tick: int) -> int | None:
        """Return the first matching second of the day from `tick` on, or None."""
        minute, second = divmod(tick, 60)
        later = self.seconds >> second
        if not later:
            minute, second = minute + 1, 0
            later = self.seconds
        hour, minute = divmod(minute, 60)
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1:
                return hour * 3600 + minute * 60 + second + lowest_bit(later)
            later = self.minutes >> minute
            if later:
                return hour * 3600 + (minute + lowest_bit(later)) * 60 + lowest_bit(self.seconds)
        later = self.hours >> hour + 1
        if not later:
            return None
        return (hour + 1 + lowest_bit(later)) * 3600 + lowest_bit(self.minutes) * 60 + lowest_bit(self.seconds)

    def before(self, tick: int) -> int:
        """Return how many matching seconds of the day are before `tick`."""
        minute, second = divmod(tick, 60)
        hour, minute = divmod(minute, 60)
        a_minute = self.seconds.bit_count()
        number = bits_below(self.hours, hour) * self.minutes.bit_count() * a_minute
        if self.hours >> hour & 1:
            number += bits_below(self.minutes, minute) * a_minute
            if self.minutes >> minute & 1:
                number += bits_below(self.seconds, second)
        return number


@dataclass(frozen=True, slots=True)
class CronTrigger(WallClockRule):
    """A cron expression of five or six fields, or an `@` keyword of cron, in a time zone.

    `daylight` is the setting of the job; None is the rule of Debian's cron.
    """

    expression: str
    timezone: str = "UTC"
    daylight: Daylight = None  # type: ignore[assignment]  # set by __post_init__ when None
    _is_fixed: bool = field(init=False, repr=False, compare=False)
    _times: _CronTimes = field(init=False, repr=False, compare=False)
    _days: _CronDays = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Parse the expression. Raise TriggerError when it is invalid or can never be due."""
        zone_named(self.timezone)
        texts = _split(self.expression)
        seconds = _Parser(_SECOND, self.expression).mask(texts.pop(0)) if len(texts) > len(_FIELDS) else 1
        minutes, hours = (_Parser(_FIELDS[index], self.expression).mask(texts[index]) for index in (0, 1))
        is_fixed = not texts[0].startswith("*") and not texts[1].startswith("*")
        for name, value in (
            ("daylight", self.daylight or (FIXED if is_fixed else WILDCARD)),
            ("_is_fixed", is_fixed),
            ("_times", _CronTimes(hours, minutes, seconds)),
            ("_days", self._days_from(*texts[2:])),
        ):
            object.__setattr__(self, name, value)

    def _days_from(self, dates: str, month: str, weekdays: str) -> _CronDays:
        try:
            return _days_named(dates, month, weekdays)
        except TriggerError as error:
            raise TriggerError("cron", self.expression, error.why) from None

    @property
    def kind(self) -> str:
        """Return `cron`."""
        return "cron"

    @property
    def text(self) -> str:
        """Return the expression and its zone."""
        is_default = self.daylight == (FIXED if self._is_fixed else WILDCARD)
        return f"cron: {self.expression} {self.timezone}" + ("" if is_default else f" ({self.daylight.text})")


def _split(expression: str) -> list[str]:
    text = expression.strip().lower()
    if text == "@reboot":
        raise TriggerError("cron", expression, "use startup: true, which runs the job at each start of the daemon")
    if text.startswith("@"):
        if text not in MACROS:
            raise TriggerError("cron", expression, f"expected one of {', '.join(MACROS)}")
        text = MACROS[text]
    if "=" in text:
        raise TriggerError("cron", expression, "set the zone with timezone: instead")
    texts = text.split()
    if len(texts) not in (len(_FIELDS), len(_FIELDS) + 1):
        wanted = "five fields (minute hour day-of-month month weekday), or six with the second first"
        raise TriggerError("cron", expression, f"expected {wanted}, found {len(texts)}")
    return texts


@lru_cache(maxsize=4096)
def _days_named(dates: str, month: str, weekdays: str) -> _CronDays:
    """Return the days of the last three fields, shared by equal expressions. Raise TriggerError when there are none."""
    expression = f"{dates} {month} {weekdays}"
    date_parts, weekday_parts = dates.split(","), weekdays.split(",")
    plain_dates = [part for part in date_parts if part not in ("l", "lw")]
    last = [part.removesuffix("l") for part in weekday_parts if re.fullmatch(r"([0-7]|[a-z]{3})l", part)]
    nth = [part.split("#") for part in weekday_parts if re.fullmatch(r"[^#]+#[1-5]", part)]
    special = {f"{name}l" for name in last} | {"#".join(pair) for pair in nth}
    plain_weekdays = [part for part in weekday_parts if part not in special]
    weekday = _Parser(_FIELDS[4], expression)
    days = _CronDays(
        dates=_Parser(_FIELDS[2], expression).parts(plain_dates),
        weekdays=_folded(weekday.parts(plain_weekdays)),
        months=_Parser(_FIELDS[3], expression).mask(month),
        either=not dates.startswith("*") and not weekdays.startswith("*"),
        last="l" in date_parts,
        last_workday="lw" in date_parts,
        last_weekdays=_folded(weekday.parts(last)),
        nth_weekdays=tuple((weekday.value(name) % 7, int(number)) for name, number in nth),
    )
    if not days.are_possible():
        raise TriggerError("cron", expression, "none of its months has such a day: it can never be due")
    return days


def _folded(weekdays: int) -> int:
    return (weekdays | weekdays >> 7) & 0x7F  # 7 is also Sunday


@dataclass(frozen=True, slots=True)
class _Parser:
    """Parses one field; errors quote `expression`."""

    spec: _Field
    expression: str

    def mask(self, text: str) -> int:
        """Return the mask of a field."""
        return self.parts(text.split(","))

    def parts(self, texts: list[str]) -> int:
        """Return the mask of the elements of a list."""
        mask = 0
        for text in texts:
            mask |= self._part(text)
        return mask

    def _part(self, part: str) -> int:
        spec = self.spec
        base, slash, step_text = part.partition("/")
        if slash and not (re.fullmatch(r"[0-9]{1,4}", step_text) and int(step_text) > 0):
            raise self._error(f"the step in {spec.name} {part!r} must be a whole number above 0")
        step = int(step_text) if slash else 1
        if base == "*":
            low, high = spec.low, min(spec.high, 6) if spec.names is WEEKDAYS else spec.high
        else:
            first, dash, last = base.partition("-")
            low = self.value(first)
            high = self.value(last) if dash else (spec.high if slash else low)
            if high < low:
                raise self._error(f"the range {base!r} in {spec.name} runs backwards")
        return sum(1 << value for value in range(low, high + 1, step))

    def value(self, text: str) -> int:
        """Return the number of a name or number. Raise TriggerError."""
        spec = self.spec
        if text in spec.names:
            return spec.names.index(text) + (1 if spec.names is MONTHS else 0)
        if not re.fullmatch(r"[0-9]{1,4}", text):
            known = f", a name ({', '.join(spec.names)})" if spec.names else ""
            special = _SPECIAL.get(spec.name, "")
            raise self._error(f"{text!r} is not a valid {spec.name}: expected a number{known}{special} or *")
        value = int(text)
        if not spec.low <= value <= spec.high:
            raise self._error(f"{spec.name} {value} is outside {spec.low} to {spec.high}")
        return value

    def _error(self, why: str) -> TriggerError:
        return TriggerError("cron", self.expression, why)
