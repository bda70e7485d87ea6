"""Calendar expressions: the OnCalendar grammar of systemd.time(7), section CALENDAR EVENTS, in any time zone.

`systemd-analyze calendar` (systemd 252) is the reference for accepted expressions, their meaning and their normal form.
schedulerd differs as follows:

- Daylight saving: a job whose hour or minute contains `*` or a repeat is due in both passes of a repeated hour, where
  systemd considers only the first. A time in a gap is not due that day, as with systemd.
- A day that exists in no year (`*-02-30`) is rejected, where systemd reports `never`.
- A zone must be in the tz database. systemd also accepts the current abbreviation of the local zone (`CEST`).
- More than 8 different repeats of fractions of a second in one expression are rejected.
- `*~27,28` is accepted. systemd, by a defect, lowers the limit of 28 by 3 with each element of such a list.
- A repeat across the end of a month (`2/5:00`) is complete. systemd omits the first times of the next month.
- The normal form of `*:*:0/1,0.5` is `*:*:00/1,00.500000`. systemd prints `*:*:*`, although it means the former.

All fields but seconds are bit masks. Fine repeats of seconds are arithmetic progressions and never enumerated.
"""

from __future__ import annotations

from bisect import bisect_left
from calendar import monthrange
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from math import gcd
from typing import ClassVar, NamedTuple

from ..core.errors import TriggerError
from ..core.models import EPOCH
from .base import bits_below, lowest_bit
from .oncalendar import (
    FIRST_YEAR,
    HOUR,
    LAST_DAY,
    LAST_YEAR,
    MINUTE,
    SECOND,
    Component,
    Components,
    OptionalComponents,
    Spec,
    parse,
)
from .timezones import EPOCH_ORDINAL, zone_named
from .wallclock import Daylight, WallClockRule

_MOST_FINE = 8  # progressions: the time to count several together is exponential in their number
_FINE = 100  # values in a minute: a repeat of seconds with more values is stored as a progression
_CACHED = 24  # months


class Progression(NamedTuple):
    """The numbers from `start` to `last` in steps of `step`; `last` is one of them."""

    start: int
    last: int
    step: int

    def next(self, low: int) -> int | None:
        """Return the first number of the progression that is not below `low`, or None."""
        if low <= self.start:
            return self.start
        return low + (self.start - low) % self.step if low <= self.last else None

    def below(self, high: int) -> int:
        """Return how many numbers of the progression are below `high`."""
        return max(0, (min(high - 1, self.last) - self.start) // self.step + 1)

    def has(self, number: int) -> bool:
        """Return whether `number` is in the progression."""
        return self.start <= number <= self.last and (number - self.start) % self.step == 0

    def meet(self, other: Progression) -> Progression | None:
        """Return the intersection with another progression (Chinese remainder theorem), or None when it is empty."""
        common = gcd(self.step, other.step)
        apart, rest = divmod(other.start - self.start, common)
        if rest:
            return None
        period, step = other.step // common, self.step // common * other.step
        first = self.start + self.step * (apart * pow(self.step // common, -1, period) % period)
        first += max(0, -(-(max(self.start, other.start) - first) // step)) * step
        last = min(self.last, other.last)
        return None if first > last else Progression(first, last - (last - first) % step, step)


@dataclass(frozen=True, slots=True)
class _Seconds:
    """The matching ticks of a minute: single ones, and progressions that are too long to list."""

    values: tuple[int, ...]
    fine: tuple[Progression, ...]
    terms: tuple[tuple[int, Progression], ...]  # sign and progression: the sum counts the union of `fine`
    first: int

    @classmethod
    def of(cls, chain: Components) -> _Seconds | None:
        """Return the seconds of a list, or None when it has too many fine repeats."""
        found = {_progression(part) for part in chain}
        long = {each for each in found if each.below(MINUTE) > _FINE}
        fine = tuple(sorted(each for each in long if not any(each.meet(other) == each for other in long - {each})))
        if len(fine) > _MOST_FINE:
            return None
        listed = {value for each in found - long for value in range(each.start, each.last + 1, each.step)}
        values = tuple(sorted(value for value in listed if not any(each.has(value) for each in fine)))
        terms: list[tuple[int, Progression]] = []
        for each in fine:  # principle of inclusion and exclusion
            terms += [(-sign, both) for sign, other in terms if (both := other.meet(each)) is not None]
            terms.append((1, each))
        return cls(values, fine, tuple(terms), min([*values[:1], *(each.start for each in fine)]))

    def next(self, low: int) -> int | None:
        """Return the first matching tick from `low` on, or None."""
        place = bisect_left(self.values, low)
        found = self.values[place] if place < len(self.values) else None
        for each in self.fine:
            other = each.next(low)
            if other is not None and (found is None or other < found):
                found = other
        return found

    def below(self, high: int) -> int:
        """Return how many matching ticks are below `high`."""
        return bisect_left(self.values, high) + sum(sign * each.below(high) for sign, each in self.terms)


@dataclass(frozen=True, slots=True)
class _CalendarTimes:
    """The matching ticks of a day."""

    hours: int
    minutes: int
    seconds: _Seconds

    def next(self, tick: int) -> int | None:
        """Return the first matching tick of the day from `tick` on, or None."""
        minute, rest = divmod(tick, MINUTE)
        hour, minute = divmod(minute, 60)
        if self.hours >> hour & 1:
            later = self.minutes >> minute
            if later & 1:
                found = self.seconds.next(rest)
                if found is not None:
                    return hour * HOUR + minute * MINUTE + found
                later -= 1
            if later:
                return hour * HOUR + (minute + lowest_bit(later)) * MINUTE + self.seconds.first
        later = self.hours >> hour + 1
        if not later:
            return None
        return (hour + 1 + lowest_bit(later)) * HOUR + lowest_bit(self.minutes) * MINUTE + self.seconds.first

    def before(self, tick: int) -> int:
        """Return how many matching ticks of the day are before `tick`."""
        minute, rest = divmod(tick, MINUTE)
        hour, minute = divmod(minute, 60)
        a_minute = self.seconds.below(MINUTE)
        number = bits_below(self.hours, hour) * self.minutes.bit_count() * a_minute
        if self.hours >> hour & 1:
            number += bits_below(self.minutes, minute) * a_minute
            if self.minutes >> minute & 1:
                number += self.seconds.below(rest)
        return number


@dataclass(frozen=True, slots=True)
class _CalendarDays:
    """The matching days, as masks; bit 0 of `years` is FIRST_YEAR."""

    years: int
    months: int
    dates: int
    from_end: bool
    weekdays: int
    _masks: dict[int, int] = field(default_factory=dict, compare=False)  # by month: a cache

    def in_month(self, year: int, month: int) -> int:
        """Return the matching days of a month as a mask; bit 1 is the first day."""
        key = year * 12 + month
        mask = self._masks.get(key)
        if mask is None:
            if len(self._masks) >= _CACHED:
                self._masks.clear()
            is_named = year >= FIRST_YEAR and self.years >> year - FIRST_YEAR & self.months >> month & 1
            mask = self._masks[key] = self._of_month(*monthrange(year, month)) if is_named else 0
        return mask

    def _of_month(self, first_weekday: int, length: int) -> int:
        weeks = self.weekdays * 0x40810204081  # repeats the mask of one week seven times
        dates = self.dates
        if self.from_end:
            dates = sum(1 << length + 1 - day for day in range(1, length + 1) if dates >> day & 1)
        return dates & weeks >> first_weekday << 1 & (1 << length + 1) - 2

    def next(self, day: int, last: int) -> int | None:
        """Return the first matching day (since 1970) in [day, last], or None."""
        while day <= last:
            today = date.fromordinal(day + EPOCH_ORDINAL)
            later = self.in_month(today.year, today.month) >> today.day
            if later:
                found = day + lowest_bit(later)
                return found if found <= last else None
            following = self._month_after(today.year, today.month)
            if following is None:
                return None
            day = date(*following, 1).toordinal() - EPOCH_ORDINAL
        return None

    def _month_after(self, year: int, month: int) -> tuple[int, int] | None:
        """Return year and month of the next matching month, or None."""
        later = self.months >> month + 1
        if later and year >= FIRST_YEAR and self.years >> year - FIRST_YEAR & 1:
            return year, month + 1 + lowest_bit(later)
        year = max(year + 1, FIRST_YEAR)
        years = self.years >> year - FIRST_YEAR
        return (year + lowest_bit(years), lowest_bit(self.months)) if years else None

    def count(self, first: int, last: int) -> int:
        """Return how many days in [first, last) match."""
        number = 0
        found = self.next(first, last - 1)
        while found is not None:
            start = date.fromordinal(found + EPOCH_ORDINAL)
            in_range = min(last - found, monthrange(start.year, start.month)[1] - start.day + 1)
            number += (self.in_month(start.year, start.month) >> start.day & (1 << in_range) - 1).bit_count()
            found = self.next(found + in_range, last - 1)
        return number


@dataclass(frozen=True, slots=True)
class CalendarTrigger(WallClockRule):
    """A calendar expression in a time zone; a zone at the end of the expression overrides `timezone`.

    `daylight` is the setting of the job; None is the default of this module. Triggers with the same meaning are equal.
    """

    TICKS: ClassVar[int] = SECOND

    expression: str = field(compare=False)
    timezone: str = "UTC"
    daylight: Daylight = None  # type: ignore[assignment]  # set by __post_init__ when None
    normalized: str = field(init=False, repr=False, compare=False)
    _spec: Spec = field(init=False, repr=False)
    _times: _CalendarTimes = field(init=False, repr=False, compare=False)
    _days: _CalendarDays = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Parse the expression. Raise TriggerError when it is invalid or can never be due."""
        zone_named(self.timezone)
        spec, zone = parse(self.expression)
        for name, value in (
            ("timezone", zone or self.timezone),
            ("daylight", self.daylight or _default_daylight(spec)),
            ("normalized", f"{spec.text} {zone}" if zone else spec.text),
            ("_spec", spec),
            ("_times", self._times_from(spec)),
            ("_days", self._days_from(spec)),
        ):
            object.__setattr__(self, name, value)

    def _times_from(self, spec: Spec) -> _CalendarTimes:
        times = _times_named(spec.hours, spec.minutes, spec.seconds)
        if times is None:
            raise TriggerError("calendar", self.expression, f"more than {_MOST_FINE} fine repeats of seconds in one list")
        return times

    def _days_from(self, spec: Spec) -> _CalendarDays:
        days = _days_named(spec.years, spec.months, spec.dates, spec.from_end, spec.weekdays)
        if days is None:
            day = spec.text.rpartition(" ")[0]
            why = f"no year from {FIRST_YEAR} to {LAST_YEAR} has a day {day}: it can never be due"
            raise TriggerError("calendar", self.expression, why)
        return days

    @property
    def kind(self) -> str:
        """Return `calendar`."""
        return "calendar"

    @property
    def text(self) -> str:
        """Return the expression in its normal form, and its zone."""
        is_default = self.daylight == _default_daylight(self._spec)
        return f"calendar: {self._spec.text} {self.timezone}" + ("" if is_default else f" ({self.daylight.text})")

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first time strictly later than `instant`, or None when there is none until the end of 2199."""
        while True:
            today = instant.toordinal() - EPOCH_ORDINAL
            day = self._days.next(max(today - 1, 0), LAST_DAY)
            if day is None:
                return None
            if day > today + 2:
                instant = EPOCH + timedelta(days=day - 2)  # the offset of a zone is less than a day
            found = WallClockRule.next_after(self, instant)  # super() does not work in a dataclass with slots
            if found is not None:
                return found
            instant += timedelta(days=365 * 39)  # the horizon is 40 years


def _default_daylight(spec: Spec) -> Daylight:
    return Daylight(gap_runs=False, repeat_both=_follows_time(spec.hours) or _follows_time(spec.minutes))


def _follows_time(chain: OptionalComponents) -> bool:
    """Return whether hours or minutes contain `*` or a repeat in their normal form."""
    return chain is None or any(part.repeat and (part.stop < 0 or part.repeat > 1) for part in chain)


@lru_cache(maxsize=4096)
def _times_named(hours: OptionalComponents, minutes: OptionalComponents, seconds: Components) -> _CalendarTimes | None:
    """Return the times of a day, shared by equal expressions; None when their seconds have too many fine repeats."""
    found = _Seconds.of(seconds)
    return None if found is None else _CalendarTimes(_mask(hours, 0, 23), _mask(minutes, 0, 59), found)


@lru_cache(maxsize=4096)
def _days_named(
    years: OptionalComponents, months: OptionalComponents, dates: OptionalComponents, from_end: bool, weekdays: int
) -> _CalendarDays | None:
    """Return the days, shared by equal expressions; None when there is no such day in any year."""
    days = _CalendarDays(
        years=_mask(years, FIRST_YEAR, LAST_YEAR) >> FIRST_YEAR,
        months=_mask(months, 1, 12),
        dates=_mask(dates, 1, 31, from_end=from_end),
        from_end=from_end,
        weekdays=weekdays,
    )
    return None if days.next(0, LAST_DAY) is None else days


def _mask(chain: OptionalComponents, low: int, high: int, *, from_end: bool = False) -> int:
    if chain is None:
        return (2 << high) - (1 << low)
    mask = 0
    for part in chain:
        for value in _values(part, high, from_end=from_end):
            mask |= 1 << value
    return mask


def _values(part: Component, high: int, *, from_end: bool) -> range:
    """Return the numbers of a component.

    Counted from the end of the month, a repeat without an end continues to the last day, which is 1.
    """
    start, stop, repeat = part
    if not repeat:
        return range(start, start + 1)
    if stop >= 0:
        return range(start, stop + 1, repeat)
    return range(start, 0, -repeat) if from_end else range(start, high + 1, repeat)


def _progression(part: Component) -> Progression:
    start, stop, repeat = part
    if not repeat:
        return Progression(start, start, MINUTE)
    last = stop if stop >= 0 else MINUTE - 1
    return Progression(start, last - (last - start) % repeat, repeat)
