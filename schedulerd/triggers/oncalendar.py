"""The OnCalendar grammar of systemd.time(7): parse an expression, and format its normal form.

Accepted expressions and the normal form are those of systemd 252; see `calendar.py` for the differences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from functools import lru_cache
from typing import NamedTuple

from ..core.errors import TriggerError
from ..core.models import EPOCH
from .base import lowest_bit
from .timezones import EPOCH_ORDINAL, zone_named

SECOND = 1_000_000  # ticks
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
FIRST_YEAR, LAST_YEAR = 1970, 2199  # the range of systemd
WORDS = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    **dict.fromkeys(("semiannually", "semi-annually", "biannually", "bi-annually"), "*-01,07-01 00:00:00"),
    **dict.fromkeys(("yearly", "annually", "anually"), "*-01-01 00:00:00"),
}
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_EVERY_WEEKDAY = 0x7F
LAST_DAY = date(LAST_YEAR, 12, 31).toordinal() - EPOCH_ORDINAL
_WORD_LIKE = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]*")
_NUMBER, _DECIMAL = "([0-9]{1,40})", r"([0-9]{1,40}(?:\.[0-9]+)?)"
_WHOLE_PART = re.compile(rf"{_NUMBER}(?:\.\.{_NUMBER})?(?:/{_NUMBER})?")
_SECONDS_PART = re.compile(rf"{_DECIMAL}(?:\.\.{_DECIMAL})?(?:/{_DECIMAL})?")
_MOST = 0x7FFF_FFFF
_MOST_PARTS = 241  # elements of a list, as in systemd


class Component(NamedTuple):
    """One element of a list: `start` or `start..stop`, either with `/repeat`; seconds are in ticks.

    The repeat of a range is 1 by default; a `stop` of -1 is none.
    """

    start: int
    stop: int = -1
    repeat: int = 0


Components = tuple[Component, ...]
OptionalComponents = Components | None  # None is `*`


class Spec(NamedTuple):
    """The meaning of an expression, normalised as by systemd: lists are sorted and without duplicates."""

    weekdays: int  # a mask, Monday is bit 0
    years: OptionalComponents
    months: OptionalComponents
    dates: OptionalComponents
    from_end: bool  # `~`: dates count from the end of the month, its last day is 1
    hours: OptionalComponents
    minutes: OptionalComponents
    seconds: Components

    @property
    def text(self) -> str:
        """Return the normal form, as `systemd-analyze calendar` prints it."""
        weekdays = "" if self.weekdays == _EVERY_WEEKDAY else _weekdays_text(self.weekdays) + " "
        years, (months, dates) = _chain_text(self.years, 4), (_chain_text(each) for each in (self.months, self.dates))
        seconds = "*" if self.seconds == EVERY_SECOND else ",".join(map(_seconds_text, self.seconds))
        times = f"{_chain_text(self.hours)}:{_chain_text(self.minutes)}:{seconds}"
        return f"{weekdays}{years}-{months}{'~' if self.from_end else '-'}{dates} {times}"


EVERY_SECOND = (Component(0, -1, SECOND),)


@lru_cache(maxsize=4096)
def parse(expression: str) -> tuple[Spec, str | None]:
    """Return the meaning of an expression and the zone at its end. Raise TriggerError when it is invalid."""
    try:
        text, zone = _without_zone(expression)
        if not text:
            raise ValueError("it is empty: expected an expression such as Mon..Fri 09:00 or *-*-01 03:30")
        text = WORDS.get(text.lower(), text)
        weekdays = _EVERY_WEEKDAY
        if text[0].isalpha():
            names, _, text = text.partition(" ")
            weekdays, text = _weekdays(names), text.lstrip(" ")
        if text.startswith("@"):
            return _at_timestamp(weekdays, text), "UTC"
        day, time = _day_and_time(text)
        return Spec(weekdays, *_date(day), *_time(time)), zone
    except ValueError as error:
        raise TriggerError("calendar", expression, str(error)) from None


def _without_zone(expression: str) -> tuple[str, str | None]:
    if expression.lower().endswith(" utc"):
        return expression[:-4], "UTC"
    text, space, name = expression.rpartition(" ")
    if space and _WORD_LIKE.fullmatch(name):
        try:
            zone_named(name)
        except ValueError:
            expected = "expected UTC or a name of the tz database such as Europe/Rome"
            raise ValueError(f"{name!r} at the end is not a time zone: {expected}") from None
        return text, name
    return expression, None


def _weekdays(names: str) -> int:
    """Return the mask of a list of weekdays; a comma may follow it."""
    mask = 0
    for part in names.removesuffix(",").split(","):
        first, dots, last = part.partition(".." if ".." in part else "-")
        low = _weekday(first, names)
        high = _weekday(last, names) if dots else low
        if high < low:
            raise ValueError(f"the weekdays {part!r} run backwards: a week goes from Mon to Sun")
        mask |= (2 << high) - (1 << low)
    return mask


def _weekday(name: str, names: str) -> int:
    lower = name.lower()
    for number, day in enumerate(WEEKDAYS):
        if lower in (day, day[:3]):
            return number
    quoted = f"{name!r}" if name == names else f"{name!r} in {names!r}"
    raise ValueError(
        f"{quoted} is neither a weekday (Mon to Sun) nor a keyword such as {', '.join(list(WORDS)[:6])}, yearly"
    )


def _at_timestamp(weekdays: int, text: str) -> Spec:
    match = re.fullmatch(r"@ *\+?([0-9]{1,12})", text)
    at = EPOCH + timedelta(seconds=int(match[1])) if match and int(match[1]) <= (LAST_DAY + 1) * 86_400 else None
    if at is None or at.year > LAST_YEAR:
        raise ValueError(f"{text!r} is not a Unix timestamp: expected @ and whole seconds, up to the end of {LAST_YEAR}")
    years, months, dates, hours, minutes, seconds = (
        (Component(value),) for value in (at.year, at.month, at.day, at.hour, at.minute, at.second * SECOND)
    )
    return Spec(weekdays, years, months, dates, False, hours, minutes, seconds)


def _day_and_time(text: str) -> tuple[str, str]:
    """Return the date and the time, either of which may be empty."""
    first, space, rest = text.partition(" ")
    if ":" in first:
        if space:
            raise ValueError(f"{rest!r} after the time {first!r} is not understood: only a zone may follow it")
        return "", first
    if text and not first:
        raise ValueError(f"there is a space too many before {text.lstrip()!r}")
    if text and "-" not in first and "~" not in first:
        raise ValueError(f"{first!r} is neither a date (year-month-day or month-day) nor a time (hour:minute)")
    return first, rest.lstrip(" ")


def _date(text: str) -> tuple[OptionalComponents, OptionalComponents, OptionalComponents, bool]:
    """Return years, months, days, and whether these count from the end of the month."""
    if not text:
        return None, None, None, False
    pieces = re.split("([-~])", text)
    if len(pieces) not in (3, 5) or (len(pieces) == 5 and pieces[1] == "~"):
        raise ValueError(f"{text!r} is not a date: expected year-month-day or month-day, with ~ before a day from the end")
    *years, months, separator, dates = pieces
    from_end = separator == "~" and dates != "*"
    limit = 28 if from_end else 31
    name = "day from the end" if from_end else "day"
    return (
        _chain("year", years[0], FIRST_YEAR, LAST_YEAR) if years else None,
        _chain("month", months, 1, 12),
        _chain(name, dates, 1, limit, from_end=from_end),
        from_end,
    )


def _time(text: str) -> tuple[OptionalComponents, OptionalComponents, Components]:
    """Return hours, minutes and seconds."""
    midnight = (Component(0),)
    if not text:
        return midnight, midnight, midnight
    pieces = text.split(":")
    if len(pieces) not in (2, 3):
        raise ValueError(f"{text!r} is not a time: expected hour:minute or hour:minute:second")
    seconds = _chain("second", pieces[2], 0, MINUTE - 1, SECOND) if len(pieces) == 3 else midnight
    if seconds is None or _is_every_second(seconds):
        seconds = EVERY_SECOND
    return _chain("hour", pieces[0], 0, 23), _chain("minute", pieces[1], 0, 59), seconds


def _is_every_second(chain: Components) -> bool:
    return EVERY_SECOND[0] in chain and all(part.start % SECOND == part.repeat % SECOND == 0 for part in chain)


def _chain(name: str, text: str, low: int, high: int, unit: int = 1, *, from_end: bool = False) -> OptionalComponents:
    """Return the components of a list, sorted; None for `*`."""
    if text == "*":
        return None
    texts = text.split(",")
    if len(texts) > _MOST_PARTS:
        raise ValueError(f"the list of {name}s is too long: at most {_MOST_PARTS} elements are allowed, not {len(texts)}")
    parts = {_part(name, each, unit) for each in texts}
    for part in parts:
        _check(name, part, low, high, unit, from_end=from_end)
    return tuple(sorted(parts))


def _part(name: str, text: str, unit: int) -> Component:
    match = (_WHOLE_PART if unit == 1 else _SECONDS_PART).fullmatch(text)
    if match is None:
        hint = " (systemd writes 0/5, not */5)" if text.startswith("*/") else ""
        raise ValueError(f"{text!r} is not a valid {name}: expected a number, first..last, either with /repeat, or *{hint}")
    first, last, every = match.groups()
    start, stop = _number(first, unit), _number(last, unit) if last else -1
    repeat = _number(every, unit) if every else (unit if last else 0)
    if every and repeat == 0:
        raise ValueError(f"the repeat in {name} {text!r} must be above 0")
    if max(start, stop, repeat) > _MOST:
        raise ValueError(f"a number in {name} {text!r} is too large")
    if last and not every and unit > 1 and 0 <= stop - start < unit:
        raise ValueError(f"{name} {text!r} is shorter than a second: such a range needs a repeat, as in 0..0.5/0.1")
    if name == "year":
        start, stop = _full_year(start), _full_year(stop)
    if stop > start:
        stop -= (stop - start) % repeat
    return Component(start) if stop == start else Component(start, stop, repeat)


def _number(text: str, unit: int) -> int:
    """Return a number in ticks, rounded half up, when the unit is a second, else the number."""
    whole, _, fraction = text.partition(".")
    if not fraction:
        return int(whole) * unit
    return int(whole) * unit + int(fraction[:6].ljust(6, "0")) + ("5" <= fraction[6:7] <= "9")


def _full_year(year: int) -> int:
    return year + 2000 if 0 <= year < 70 else year + 1900 if 70 <= year < 100 else year


def _check(name: str, part: Component, low: int, high: int, unit: int, *, from_end: bool) -> None:
    """Raise ValueError when a component is outside its limits, runs backwards or repeats nothing."""
    start, stop, repeat = part
    lowest, highest = low // unit, high // unit
    for value in (start, stop) if stop >= 0 else (start,):
        if not low <= value <= high:
            raise ValueError(f"{name} {_plain(value, unit)} is outside {lowest} to {highest}")
    if 0 <= stop < start:
        raise ValueError(f"the range {_plain(start, unit)}..{_plain(stop, unit)} in {name} runs backwards")
    if stop < 0 and (start - repeat < low if from_end else start + repeat > high):
        end = lowest if from_end else highest
        raise ValueError(
            f"the repeat in {name} {_plain(start, unit)}/{_plain(repeat, unit)} is too large: it is over {end} at once"
        )


def _plain(value: int, unit: int) -> str:
    return f"{value / unit:.6f}".rstrip("0").rstrip(".") if unit > 1 else str(value)


def _weekdays_text(mask: int) -> str:
    names = [name[:3].title() for name in WEEKDAYS]
    return ",".join(
        (names[first] if first == last else f"{names[first]}{',' if last == first + 1 else '..'}{names[last]}")
        for first, last in _runs(mask)
    )


def _runs(mask: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last bit of each run of ones."""
    bit = 0
    while mask >> bit:
        bit += lowest_bit(mask >> bit)
        last = bit + lowest_bit(~(mask >> bit)) - 1
        yield bit, last
        bit = last + 1


def _chain_text(chain: OptionalComponents, width: int = 2) -> str:
    return "*" if chain is None else ",".join(_part_text(part, width) for part in chain)


def _part_text(part: Component, width: int) -> str:
    text = f"{part.start:0{width}}" + (f"..{part.stop:0{width}}" if part.stop >= 0 else "")
    is_plain = not part.repeat or (part.stop >= 0 and part.repeat == 1)
    return text if is_plain else f"{text}/{part.repeat}"


def _seconds_text(part: Component) -> str:
    text = _ticks_text(part.start, 2) + (f"..{_ticks_text(part.stop, 2)}" if part.stop >= 0 else "")
    is_plain = not part.repeat or (part.stop >= 0 and part.repeat == SECOND)
    return text if is_plain else f"{text}/{_ticks_text(part.repeat, 1)}"


def _ticks_text(ticks: int, width: int) -> str:
    second, rest = divmod(ticks, SECOND)
    return f"{second:0{width}}" + (f".{rest:06}" if rest else "")
