"""Rules on the wall clock of a time zone, and the effects of daylight saving.

A subclass decides which days and which times of a day match, in whole ticks (seconds, or parts of them) of the zone's
wall clock. This module handles gaps and repeats:

- gap `run`: a time in a gap is due once, right after it; `skip`: it is not due that day;
- repeat `once`: of a local time that occurs twice only the first is due; `both`: both are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, NamedTuple, Protocol

from ..core.errors import TriggerError
from ..core.models import EPOCH, to_micros
from .base import Rule
from .timezones import DAY, FIRST_YEAR, LAST_YEAR, ZonePeriod, period_at, wall, zone_named

HORIZON_YEARS = 40  # 29 February falls on a given weekday at least this often, even around 2100, not a leap year
GAPS, REPEATS = ("run", "skip"), ("once", "both")


class Daylight(NamedTuple):
    """The handling of local times that do not exist, and of those that occur twice."""

    gap_runs: bool
    repeat_both: bool

    @property
    def text(self) -> str:
        """Return the setting in the notation of the configuration."""
        return f"gap {GAPS[not self.gap_runs]}, repeat {REPEATS[self.repeat_both]}"


FIXED = Daylight(gap_runs=True, repeat_both=False)  # Debian cron's rule for jobs without `*` in minute and hour
WILDCARD = Daylight(gap_runs=False, repeat_both=True)  # and for the other jobs, which follow elapsed time


def daylight_from(given: Mapping[str, Any] | None, default: Daylight) -> Daylight:
    """Return the setting `dst` (`gap: run|skip`, `repeat: once|both`), with defaults. Raise TriggerError."""
    if given is None:
        return default
    if not isinstance(given, Mapping):
        raise TriggerError("dst", str(given), "expected a mapping such as {gap: skip, repeat: both}")
    known = {"gap": GAPS, "repeat": REPEATS}
    for key, value in given.items():
        if key not in known or (value is not None and value not in known[key]):
            words = " or ".join(known.get(key, known))
            raise TriggerError("dst", f"{key}: {value}", f"expected {words}")
    gap, repeat = given.get("gap"), given.get("repeat")
    return Daylight(
        default.gap_runs if gap is None else gap == "run", default.repeat_both if repeat is None else repeat == "both"
    )


class Days(Protocol):
    """The matching days, as days since 1970 in the zone's calendar."""

    def next(self, day: int, last: int) -> int | None:
        """Return the first matching day in [day, last], or None."""
        ...

    def count(self, first: int, last: int) -> int:
        """Return how many days in [first, last) match."""
        ...


class Times(Protocol):
    """The matching times of a day, as ticks since its midnight."""

    def next(self, tick: int) -> int | None:
        """Return the first matching tick from `tick` on, or None."""
        ...

    def before(self, tick: int) -> int:
        """Return how many matching ticks are before `tick`."""
        ...


class WallClockRule(Rule):
    """A rule on the wall clock of `timezone`: certain times on certain days. Subclasses are immutable."""

    __slots__ = ()
    TICKS: ClassVar[int] = 1  # per second

    timezone: str
    daylight: Daylight
    _days: Days
    _times: Times

    def _next_local(self, low: int, high: int) -> int | None:
        """Return the first matching local tick in [low, high), or None."""
        a_day = DAY * self.TICKS
        day, tick = divmod(low, a_day)
        last_day = (high - 1) // a_day
        while True:
            found = self._days.next(day, last_day)
            if found is None:
                return None
            time = self._times.next(tick if found == day else 0)
            if time is not None:
                local = found * a_day + time
                return local if local < high else None
            day, tick = found + 1, 0

    def _count_local(self, low: int, high: int) -> int:
        """Return how many local ticks in [low, high) match."""
        if low >= high:
            return 0
        a_day, times, days = DAY * self.TICKS, self._times, self._days
        (first, start), (last, end) = divmod(low, a_day), divmod(high, a_day)
        whole = times.before(a_day) * days.count(first, last)
        before = times.before(start) if days.next(first, first) is not None else 0
        after = times.before(end) if days.next(last, last) is not None else 0
        return whole - before + after

    @property
    def rhythm(self) -> Rule | None:
        """Return the rule itself when it is due in both passes of a repeated hour: it then follows elapsed time."""
        return self if self.daylight.repeat_both else None

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first time strictly later than `instant`, or None when there is none within HORIZON_YEARS."""
        if not FIRST_YEAR <= instant.year <= LAST_YEAR - HORIZON_YEARS:
            return None
        found = self._next_tick(self._tick_after(instant))
        return None if found is None else self._instant(found)

    def _next_tick(self, tick: int) -> int | None:
        """Return the first due tick (since 1970 UTC) from `tick` on, by a search through the periods of the zone."""
        per = self.TICKS
        last = tick // per + HORIZON_YEARS * 366 * DAY
        period = period_at(self.timezone, tick // per)
        if tick == period.start * per and self._was_swallowed(period):
            return tick
        low = max(tick + period.offset * per, self._first_local(period))
        while period.start < last:
            found = self._next_local(low, (period.end + period.offset) * per)
            if found is not None:
                return found - period.offset * per
            period = period_at(self.timezone, period.end)
            if self._was_swallowed(period):
                return period.start * per
            low = self._first_local(period)
        return None

    def _first_local(self, period: ZonePeriod) -> int:
        """Return the first local tick of a period that may be due: after its repeat, when that is due once."""
        local = period.offset if self.daylight.repeat_both or period.before <= period.offset else period.before
        return (period.start + local) * self.TICKS

    def _was_swallowed(self, period: ZonePeriod) -> bool:
        """Return whether a matching local time lies in the gap before `period` and is due at its end."""
        return self.daylight.gap_runs and period.before < period.offset and self._in_gap(period) is not None

    def _in_gap(self, period: ZonePeriod) -> int | None:
        return self._next_local((period.start + period.before) * self.TICKS, (period.start + period.offset) * self.TICKS)

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many times are later than `after` and not later than `upto`, without enumeration."""
        per, number = self.TICKS, 0
        first, end = self._tick_after(after), self._tick_after(upto)
        for period in self._periods(first, end):
            low = max(first + period.offset * per, self._first_local(period))
            if first <= period.start * per and self._was_swallowed(period):
                number += 1
                low = max(low, (period.start + period.offset) * per + 1)
            number += self._count_local(low, min(end, period.end * per) + period.offset * per)
        return number

    def _periods(self, tick: int, end: int) -> Iterator[ZonePeriod]:
        while tick < end:
            period = period_at(self.timezone, tick // self.TICKS)
            yield period
            tick = period.end * self.TICKS

    def reasons(self, at: datetime) -> tuple[str, ...]:
        """Return the effect of daylight saving on the time `at`."""
        second = to_micros(at) // 1_000_000
        period = period_at(self.timezone, second)
        local = second + period.offset
        if at == EPOCH + timedelta(seconds=period.start) and self._was_swallowed(period):
            swallowed = wall((self._in_gap(period) or 0) // self.TICKS)
            local_gap = ((period.start + each) * self.TICKS for each in (period.before, period.offset))
            others = self._count_local(*local_gap) - 1
            more = f" (nor do {others} more of its times)" if others else ""
            missing = f"{swallowed:%H:%M:%S} does not exist on {swallowed:%Y-%m-%d}{more}: {_gap(period)}"
            return (f"{missing}, it runs right after the gap",)
        if local < period.start + period.before:
            return ("the second pass of a repeated time: it follows elapsed time, or dst has repeat: both",)
        following = period_at(self.timezone, period.end)
        if local >= following.start + following.offset:
            rest = "both are due" if self.daylight.repeat_both else "it is due once"
            return (f"this time occurs twice, this is the first: {rest}",)
        return ()

    def why_not(self, instant: datetime) -> str | None:
        """Return that `instant` is the second pass of a time that is due once, or None."""
        tick = self._tick_after(instant) - 1
        period = period_at(self.timezone, tick // self.TICKS)
        local = tick + period.offset * self.TICKS
        is_repeat = local < self._first_local(period)
        if is_repeat and self._next_local(local, local + 1) is not None:
            return "the second pass of a repeated time: it was due the first time (dst repeat: once)"
        return None

    def _tick_after(self, instant: datetime) -> int:
        """Return the first tick strictly later than `instant`."""
        since = instant - EPOCH
        seconds = since.days * DAY + since.seconds  # exact in any year, unlike a float
        return seconds + 1 if self.TICKS == 1 else seconds * self.TICKS + since.microseconds * self.TICKS // 1_000_000 + 1

    def _instant(self, tick: int) -> datetime:
        if self.TICKS == 1:
            return datetime.fromtimestamp(tick, UTC)
        return EPOCH + timedelta(microseconds=tick * 1_000_000 // self.TICKS)


def gap_around(zone: str, local: datetime) -> tuple[str, datetime] | None:
    """Return the description and the end of the gap that contains the naive local time `local`, or None."""
    zone_named(zone)
    second = int(local.replace(tzinfo=UTC).timestamp())
    period = period_at(zone, second - DAY)
    while period.start - DAY < second:
        if period.start + period.before <= second < period.start + period.offset:
            return _gap(period), EPOCH + timedelta(seconds=period.start)
        period = period_at(zone, period.end)
    return None


def _gap(period: ZonePeriod) -> str:
    begin, end = wall(period.start + period.before), wall(period.start + period.offset)
    return f"clocks go from {begin:%H:%M} to {end:%H:%M}"
