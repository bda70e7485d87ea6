"""Phrases of the library `schedule`: `day at 03:00`, `monday at 09:30`, `2 hours at :15`, `5 to 10 minutes`.

The library defines what is accepted and what it means. It counts from the call; here, every rule is anchored to 1970, so
that no restart, reload or other node shifts it:

- `N UNITS` alone is elapsed time, as `every: 2h`.
- `day`, WEEKDAY, `hour` and `minute` with `at`, and `N days at`, are times of the job's zone. `N days` counts the
  calendar days of the zone from 1970-01-01. Daylight saving is that of cron: fixed times for days, wildcards for hours
  and minutes.
- `N hours at` and `N minutes at` are elapsed time, at the minute and second on the wall clock of the zone.
- `A to B UNITS` are random gaps, drawn from a hash of the seed, so that they are the same on each host.

Further differences from the library:

- `monday` without a time is 00:00 of that day. The library uses the time of day of the call.
- A time in a gap is due right after it, as with cron. The library, when given a zone, uses an hour later.
- Gaps of `A to B` are drawn in microseconds. The library draws whole units.
- `A to B UNITS at` and `A to B monday` are rejected: random gaps have no fixed time or day.
- Zero or a fraction of a unit is rejected. A number of units is at most 100 years, with `at` 10 years.

Elapsed time and random gaps do not depend on daylight saving: `dst` has no effect on them.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

from ..core.errors import TriggerError
from ..core.models import from_micros, to_micros
from ..core.units import LONGEST
from .base import Rule
from .interval import IntervalTrigger
from .timezones import DAY, FIRST_YEAR, LAST_YEAR, period_at, zone_named
from .wallclock import FIXED, WILDCARD, Daylight, WallClockRule

HOUR, MINUTE = 3600, 60
UNITS = {"seconds": 1, "minutes": MINUTE, "hours": HOUR, "days": DAY, "weeks": 7 * DAY}
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
LONGEST_AT = 3650 * DAY  # rules on the wall clock search 40 years ahead and may have to pass times in gaps
EXAMPLES = "`2 hours`, `day at 03:00`, `monday at 09:30`, `hour at :15`, `5 to 10 minutes`"

_FIRST_MONDAY = 4 * DAY  # 1970-01-05
_MARGIN_YEARS = 200  # two of the longest steps
_SIXTY = "[0-5][0-9]"
_TIMES = {
    "minutes": (rf":(?P<s>{_SIXTY})",),
    "hours": (rf":(?P<m>{_SIXTY})", rf"(?P<m>{_SIXTY}):(?P<s>{_SIXTY})"),
    "days": (rf"(?P<h>[01][0-9]|2[0-3]):(?P<m>{_SIXTY})(?::(?P<s>{_SIXTY}))?",),
}
_EXPECTED = {
    "minutes": ":SS, such as `minute at :30`",
    "hours": ":MM or MM:SS, such as `hour at :15` or `hour at 15:30`",
    "days": "HH:MM or HH:MM:SS from 00:00 to 23:59:59, such as `day at 03:00` or `monday at 09:30:15`",
}


@dataclass(frozen=True, slots=True)
class WallPhrase(WallClockRule):
    """Due every `step` seconds of the zone's wall clock; `start` is one of the times, in local seconds since 1970."""

    phrase: str
    start: int
    step: int
    timezone: str
    daylight: Daylight

    @property
    def kind(self) -> str:
        """Return `interval`."""
        return "interval"

    @property
    def text(self) -> str:
        """Return the phrase and its zone."""
        is_default = self.daylight == _usual(self.step)
        return f"every: {self.phrase} {self.timezone}" + ("" if is_default else f" ({self.daylight.text})")

    def _next_local(self, low: int, high: int) -> int | None:
        found = low + (self.start - low) % self.step
        return found if found < high else None

    def _count_local(self, low: int, high: int) -> int:
        return max(0, (high - 1 - self.start) // self.step - (low - 1 - self.start) // self.step)


class NumberedRule(Rule):
    """Numbered times: time k lies in the k-th step since 1970 UTC, or at most `early` before it; times ascend."""

    __slots__ = ()

    @property
    @abstractmethod
    def step(self) -> int:
        """Return the mean gap in microseconds."""

    @property
    def early(self) -> int:
        """Return how many microseconds before its step a time may be."""
        return 0

    @abstractmethod
    def time(self, number: int) -> int:
        """Return the time with a number, in microseconds since 1970 UTC."""

    @property
    def kind(self) -> str:
        """Return `interval`."""
        return "interval"

    @property
    def rhythm(self) -> Rule | None:
        """Return the rule itself: it follows elapsed time."""
        return self

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first time strictly later than `instant`, or None near the ends of the calendar."""
        if not FIRST_YEAR + _MARGIN_YEARS <= instant.year <= LAST_YEAR - _MARGIN_YEARS:
            return None
        return from_micros(self.time(self._last(to_micros(instant)) + 1))

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many times are in (after, upto]."""
        return max(0, self._last(to_micros(upto)) - self._last(to_micros(after)))

    def _last(self, micros: int) -> int:
        """Return the number of the last time that is not later than `micros`."""
        number = (micros + self.early) // self.step
        return number if self.time(number) <= micros else number - 1


@dataclass(frozen=True, slots=True)
class ElapsedPhrase(NumberedRule):
    """Due once in each `seconds` of elapsed time, as soon as the zone's wall clock shows `at` within a `period`.

    `at` and `period` are seconds: 900 of 3600 is a quarter past. A shift of the zone by half an hour moves the times by as
    much, because they must stay at that minute. `seconds` is at least two periods: a time that a shift delays remains in its
    own step.
    """

    phrase: str
    seconds: int
    period: int
    at: int
    timezone: str

    @property
    def text(self) -> str:
        """Return the phrase and its zone."""
        return f"every: {self.phrase} {self.timezone}"

    @property
    def step(self) -> int:
        """Return the gap in microseconds."""
        return self.seconds * 1_000_000

    def time(self, number: int) -> int:
        """Return the first microsecond of a step at which the zone's wall clock shows the wanted time."""
        second = number * self.seconds
        while True:
            period = period_at(self.timezone, second)
            found = second + (self.at - period.offset - second) % self.period
            if found < period.end:
                return found * 1_000_000
            second = period.end


@dataclass(frozen=True, slots=True)
class RandomPhrase(NumberedRule):
    """Due after random gaps of `shortest` to `longest` seconds.

    Time k is k mean gaps after 1970, plus or minus at most a quarter of the difference, drawn from a hash of `seed` and k.
    Each gap is then within the bounds, and each time can be calculated without the earlier ones.
    """

    phrase: str
    shortest: int
    longest: int
    seed: str

    @property
    def text(self) -> str:
        """Return the phrase."""
        return f"every: {self.phrase}"

    @property
    def step(self) -> int:
        """Return the mean gap in microseconds."""
        return (self.shortest + self.longest) * 500_000

    @property
    def early(self) -> int:
        """Return a quarter of the difference, in microseconds."""
        return (self.longest - self.shortest) * 250_000

    def time(self, number: int) -> int:
        """Return the time with a number, in microseconds since 1970 UTC."""
        digest = blake2b(f"{self.seed}/{number}".encode(), digest_size=16).digest()
        return number * self.step - self.early + int.from_bytes(digest, "big") % (2 * self.early + 1)


class Phrase(NamedTuple):
    """A parsed phrase: `low` to `high` of a unit (or weekday), and the second in it that `at` names."""

    low: int
    high: int
    unit: str
    at: int | None

    @property
    def text(self) -> str:
        """Return the phrase in a normal form."""
        numbers = f"{self.low} to {self.high} " if self.low != self.high else f"{self.low} " if self.low > 1 else ""
        unit = self.unit if numbers or self.unit in WEEKDAYS else self.unit.removesuffix("s")
        return f"{numbers}{unit}" + ("" if self.at is None else f" at {self._time_text(self.at)}")

    def _time_text(self, at: int) -> str:
        hour, minute, second = at // HOUR, at // MINUTE % 60, at % MINUTE
        if self.unit == "minutes":
            return f":{second:02}"
        if self.unit == "hours":
            return f"{minute:02}:{second:02}" if second else f":{minute:02}"
        return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")


def phrase_from(text: str, timezone: str, daylight: Daylight | None, seed: str) -> Rule:
    """Return the rule of a phrase of the library `schedule`; with `daylight` None, cron's rule applies.

    `seed` is the job's id, from which random gaps are drawn. Raise TriggerError.
    """
    try:
        zone_named(timezone)
    except ValueError as error:
        raise TriggerError("timezone", timezone, str(error)) from None
    try:
        phrase = _read(text)
    except ValueError as error:
        raise TriggerError("every", text, str(error)) from None
    return _rule(phrase, timezone, daylight, seed)


def _rule(phrase: Phrase, timezone: str, daylight: Daylight | None, seed: str) -> Rule:
    if phrase.unit in WEEKDAYS:
        start, period = _FIRST_MONDAY + WEEKDAYS.index(phrase.unit) * DAY, UNITS["weeks"]
    else:
        start, period = 0, UNITS[phrase.unit]
    step = phrase.low * period
    if phrase.low != phrase.high:
        return RandomPhrase(phrase.text, step, phrase.high * period, seed)
    if phrase.at is None:
        return IntervalTrigger(float(step))
    if phrase.low > 1 and phrase.unit != "days":
        return ElapsedPhrase(phrase.text, step, period, phrase.at, timezone)
    return WallPhrase(phrase.text, start + phrase.at, step, timezone, daylight or _usual(step))


def _usual(step: int) -> Daylight:
    """Return the rule of Debian's cron: days have fixed times, hours and minutes are wildcards."""
    return WILDCARD if step % DAY else FIXED


def _read(text: str) -> Phrase:
    """Return the parsed phrase. Raise ValueError with the mistake and what is expected."""
    words = text.lower().split()
    if words[:1] == ["every"]:
        words = words[1:]
    low, high, words = _numbers(words)
    if not words:
        raise ValueError(f"a unit is missing: expected {', '.join(UNITS)} or a weekday, such as {EXAMPLES}")
    unit = _unit(words[0], low, high)
    at = _at(words[1:], unit)
    if unit in WEEKDAYS:
        return Phrase(low, high, unit, at or 0)
    if at is not None and low != high:
        raise ValueError(f"`at` does not go with `{low} to {high}`: random gaps have no fixed time, write one of the two")
    if at is not None and low * UNITS[unit] > LONGEST_AT:
        raise ValueError(f"{low} {unit} are too long: with `at`, at most {LONGEST_AT // DAY} days are possible")
    return Phrase(low, high, unit, at)


def _numbers(words: list[str]) -> tuple[int, int, list[str]]:
    """Return the numbers of `N` or `A to B`, 1 by default, and the words after them."""
    if not words or not re.match(r"[-+.\d]", words[0]):
        return 1, 1, words
    low = _number(words[0])
    if words[1:2] != ["to"]:
        return low, low, words[1:]
    if len(words) == 2:
        raise ValueError(f"a number is missing after `{low} to`: expected two numbers and a unit, such as `5 to 10 minutes`")
    high = _number(words[2])
    if high < low:
        raise ValueError(f"`{low} to {high}` runs backwards: the smaller number comes first, such as `5 to 10 minutes`")
    return low, high, words[3:]


def _number(word: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", word) or int(word) < 1:
        raise ValueError(f"{word!r}: a whole number from 1 on is expected, such as `2 hours` or `5 to 10 minutes`")
    return int(word)


def _unit(word: str, low: int, high: int) -> str:
    """Return the plural of a unit, or a weekday. Raise ValueError."""
    if word.removesuffix("s") in WEEKDAYS:
        weekday = word.removesuffix("s")
        if word != weekday or (low, high) != (1, 1):
            raise ValueError(f"weekdays are singular and have no number: expected `{weekday}` or `{weekday} at 09:30`")
        return weekday
    unit = word if word in UNITS else word + "s"
    if unit not in UNITS:
        raise ValueError(f"{word!r} is not a unit: expected {', '.join(UNITS)} or a weekday in full, such as {EXAMPLES}")
    if word != unit and low != 1:
        raise ValueError(f"`{low} {word}`: expected `{low} {unit}`")
    if high * UNITS[unit] > LONGEST:
        raise ValueError(f"{high} {unit} are too long: at most 100 years are possible")
    return unit


def _at(words: list[str], unit: str) -> int | None:
    """Return the second within a unit that `at TIME` names, or None without words. Raise ValueError."""
    if not words:
        return None
    if words[0] != "at":
        raise ValueError(f"{words[0]!r} is not expected there: only `at` and a time can follow, such as `day at 03:00`")
    if unit == "weeks":
        raise ValueError("`at` does not go with weeks: name the day instead, such as `monday at 09:30`")
    if unit == "seconds":
        raise ValueError(
            "`at` does not go with seconds: it goes with minutes, hours, days and weekdays, as in `minute at :30`"
        )
    place = "days" if unit in WEEKDAYS else unit
    if len(words) == 1:
        raise ValueError(f"a time is missing after `at`: expected {_EXPECTED[place]}")
    if len(words) > 2:
        raise ValueError(f"{words[2]!r} is not expected after the time: write one time only, such as `day at 03:00`")
    for pattern in _TIMES[place]:
        if match := re.fullmatch(pattern, words[1]):
            return sum(int(text or 0) * {"h": HOUR, "m": MINUTE, "s": 1}[name] for name, text in match.groupdict().items())
    raise ValueError(f"{words[1]!r} is not a time for {unit}: expected {_EXPECTED[place]}")
