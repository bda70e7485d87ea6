"""Blackouts: windows in which a job is not started. They are weekly, dates, or the events of a calendar file.

A window refers to the wall clock of the job's time zone. It begins when that clock first shows its begin or later, and
ends after the clock last showed a time before its end. A window that reaches into a repeated hour therefore covers both
passes, and a bound in a gap is at the end of the gap. Windows are stored as sorted seconds of the wall clock and
searched by bisection. Only the end of a window is converted to an instant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from ..core.errors import TriggerError
from ..core.models import EPOCH
from ..core.text import did_you_mean, shown
from .spans import Calendar, Coverage, Covering, Span, coverage_of, piece_of
from .timezones import DAY, period_at, to_instant, wall, zone_named

WEEK = 7 * DAY
FURTHEST = 50 * 366 * DAY  # seconds: a rule without a free moment within this time has none
MOST_STEPS = 2_000  # consecutive windows that a search for a free moment passes
YEARS = range(1600, 9000)  # of dates: within the range of datetime

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
DATES_EXPECTED = (
    "expected a date (2026-12-24), dates (2026-12-24..2026-12-26) or moments (2026-12-24T18:00..2026-12-27T06:00)"
)
EXPECTED = (
    "expected days (sat..sun), times (22:00..06:00), both (mon..fri 09:00..17:30), moments of the week "
    "(fri 18:00..mon 06:00), dates (2026-12-24..2026-12-26) or {calendar: NAME}"
)

_EPOCH_WEEKDAY = 3  # Unix time begins on a Thursday
_SECOND = timedelta(seconds=1)

_TIME = r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?"
_DATE = rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})(?:[t ]({_TIME}))?"
_DATES = re.compile(rf"{_DATE}(?:\.\.{_DATE})?")
_MOMENTS = re.compile(rf"([^0-9:., ]+) ({_TIME})\.\.([^0-9:., ]+) ({_TIME})")
_TIMES = re.compile(rf"(?:([^0-9: ]+) )?({_TIME})\.\.({_TIME})")
_DAYS = re.compile(r"[^0-9: ]+")

_Range = tuple[int, int]  # seconds: begin and exclusive end


class _Moment(NamedTuple):
    """An instant as Unix time and on the wall clock: a window that begins by `high` and ends after `low` covers it.

    They differ in a repeated hour only. In its first pass, a window that ended in this pass lasts until the second; in the
    second pass, all windows that begin in the hour have begun.
    """

    zone: str
    second: int
    low: int
    high: int


def _moment(zone: str, instant: datetime) -> _Moment:
    second = (instant - EPOCH) // _SECOND
    near = period_at(zone, second)
    local = second + near.offset
    if second < near.start + near.before - near.offset:
        return _Moment(zone, second, local, near.start + near.before - 1)
    if near.end - second <= DAY:
        repeat = near.end + period_at(zone, near.end).offset
        return _Moment(zone, second, min(local, repeat), local)
    return _Moment(zone, second, local, local)


def _end(zone: str, local_second: int) -> datetime:
    """Return the instant after the wall clock last showed a time before `local_second`."""
    local = wall(local_second)
    end = to_instant(zone, local, is_end=True)
    first = to_instant(zone, local)
    # At the begin of a repeated hour, its first pass is not before the end: a job at 02:00 runs after a window ..02:00.
    return first if first != end and to_instant(zone, local - _SECOND, is_end=True) < first else end


@dataclass(frozen=True, slots=True)
class _Window:
    """The time that a calendar, or all texts of one kind together, cover; `text` names the calendar."""

    text: str
    coverage: Coverage

    def covering(self, moment: _Moment) -> str | None:
        """Return the window that covers `moment`, with the name of the event, or None."""
        found = self.find(moment)
        return None if found is None else ": ".join(filter(None, (self.text, found.name)))

    def end(self, moment: _Moment) -> datetime | None:
        """Return when the window that covers `moment` ends, or None; a distant end is reduced to FURTHEST and a week."""
        found = self.find(moment)
        return None if found is None else _end(moment.zone, min(found.until, moment.high + FURTHEST + WEEK))

    def find(self, moment: _Moment) -> Covering | None:
        """Return the entry that covers `moment`, with its end, or None."""
        return self.coverage.find(moment.low, moment.high)


@dataclass(frozen=True, slots=True)
class _Weekly(_Window):
    """Weekly windows, in seconds of a week, for three weeks."""

    def find(self, moment: _Moment) -> Covering | None:
        """Return the entry that covers `moment`, with its end, or None."""
        low = (moment.low + _EPOCH_WEEKDAY * DAY) % WEEK
        found = self.coverage.find(low, low + moment.high - moment.low)
        return None if found is None else Covering(found.name, found.until + moment.low - low)


@dataclass(frozen=True, slots=True)
class _Universal(_Window):
    """Windows in UTC, in seconds of Unix time."""

    def end(self, moment: _Moment) -> datetime | None:
        """Return when the window that covers `moment` ends, or None; a distant end is reduced to FURTHEST and a week."""
        found = self.find(moment)
        return None if found is None else EPOCH + min(found.until, moment.second + FURTHEST + WEEK) * _SECOND

    def find(self, moment: _Moment) -> Covering | None:
        """Return the entry that covers `moment`, with its end, or None."""
        return self.coverage.find(moment.second, moment.second)


@dataclass(frozen=True, slots=True)
class Blackout:
    """The windows in which a job is not started; an occurrence in one is skipped, or deferred to its end (`defers`).

    `text` identifies the windows: it contains a hash of the spans of each calendar.
    """

    text: str
    timezone: str
    defers: bool
    windows: tuple[_Window, ...] = field(repr=False, compare=False)

    @property
    def is_weekly(self) -> bool:
        """Return whether the blackout is the same in every week."""
        return all(isinstance(window, _Weekly) for window in self.windows)

    def covering(self, instant: datetime) -> str | None:
        """Return the window that covers `instant`, as configured, or None."""
        moment = _moment(self.timezone, instant)
        for window in self.windows:
            text = window.covering(moment)
            if text is not None:
                return text
        return None

    def free_at(self, instant: datetime) -> datetime | None:
        """Return the first moment from `instant` on outside all windows, or None when there is none within FURTHEST."""
        free, limit = instant.astimezone(UTC), instant + FURTHEST * _SECOND
        for _ in range(MOST_STEPS):
            moment = _moment(self.timezone, free)
            ends = [end for window in self.windows if (end := window.end(moment)) is not None]
            if not ends:
                return free
            free = max(ends)
            if free > limit:
                return None
        return None


def blackout_from(
    value: object, timezone: str, calendars: Mapping[str, Calendar], *, defers: bool = False
) -> Blackout | None:
    """Return the blackout of a YAML value, a window or a list of windows; None when there is none.

    Raise TriggerError, which names the window and the reason, when one cannot be parsed.
    """
    items = list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]
    if not items:
        return None
    try:
        zone_named(timezone)
    except ValueError as error:
        raise TriggerError("timezone", timezone, str(error)) from None
    windows: list[_Window] = []
    names: list[str] = []
    for index, item in enumerate(items):
        text = _text_of(item)
        try:
            name, found = _windows_from(item, text, calendars)
        except ValueError as error:
            loc = ("blackout", index) if isinstance(value, (list, tuple)) else ("blackout",)
            raise TriggerError("blackout", text, str(error), loc) from None
        windows += found
        names.append(name)
    windows = _merged(windows)
    _refuse_whole_week(windows)
    text = f"blackout {'defers' if defers else 'skips'} {'; '.join(names)} ({timezone})"
    return Blackout(text, timezone, defers, tuple(windows))


def span_from(text: str, name: str = "") -> Span:
    """Return the span of a date, a range of dates or a range of moments. Raise ValueError with the reason."""
    match = _DATES.fullmatch(_normal(text))
    if match is None:
        raise ValueError(DATES_EXPECTED)
    first_day, first_time, last_day, last_time = match.groups()
    if last_day is None and first_time is not None:
        raise ValueError(f"its end is missing: {DATES_EXPECTED}")
    first = _midnight(first_day) + timedelta(seconds=_clock(first_time) if first_time else 0)
    last = _midnight(last_day or first_day) + timedelta(seconds=_clock(last_time, is_end=True) if last_time else DAY)
    if last == first and last_day == first_day:
        raise ValueError(f"it begins and ends at the same time: {DATES_EXPECTED}")
    if last <= first:
        raise ValueError(f"it runs backwards: {DATES_EXPECTED}, the earlier one first")
    return Span(first, last, name)


def _windows_from(item: object, text: str, calendars: Mapping[str, Calendar]) -> tuple[str, tuple[_Window, ...]]:
    """Return the text that identifies an item, and its windows. Raise ValueError."""
    if isinstance(item, Mapping):
        calendar = _calendar_named(item, calendars)
        return f"calendar {calendar.name} ({calendar.digest[:12]})", _windows_of(calendar)
    if not isinstance(item, str):
        raise ValueError(EXPECTED)
    normal = _normal(text)
    if re.match(r"[0-9]{4}-", normal):
        return text, (_Window("", coverage_of([piece_of(span_from(text, text))])),)
    return text, (_Weekly("", _each_week(_weekly(normal), text)),)


def _windows_of(calendar: Calendar) -> tuple[_Window, ...]:
    text = f"calendar {calendar.name}"
    found: list[_Window] = [_Window(text, calendar.local)] if calendar.local.starts else []
    return (*found, _Universal(text, calendar.universal)) if calendar.universal.starts else tuple(found)


def _merged(windows: list[_Window]) -> list[_Window]:
    """Return the windows with all texts of one kind merged: a search is then one bisection each, however many there are."""
    merged = [window for window in windows if window.text]
    for kind in (_Window, _Weekly):
        same = [window for window in windows if type(window) is kind and not window.text]
        if same:
            merged.append(kind("", coverage_of(piece for window in same for piece in window.coverage.pieces())))
    return merged


def _text_of(item: object) -> str:
    if isinstance(item, str):
        return " ".join(item.split())
    if isinstance(item, Mapping):
        return ", ".join(f"{key}: {each}" for key, each in item.items())
    return shown(item)


def _calendar_named(item: Mapping[object, object], calendars: Mapping[str, Calendar]) -> Calendar:
    name = item.get("calendar")
    if len(item) != 1 or not isinstance(name, str):
        raise ValueError("a mapping names a calendar, such as {calendar: holidays}")
    if name in calendars:
        return calendars[name]
    known = f"there are {', '.join(sorted(calendars))}" if calendars else "none is named under calendars"
    raise ValueError(f"there is no calendar {name!r}{did_you_mean(name, calendars)}: {known}")


def _weekly(text: str) -> list[_Range]:
    """Return the ranges of seconds of a week that a weekly window covers; one may end in the next week."""
    match = _MOMENTS.fullmatch(text)
    if match is not None:
        begin = _weekday(match[1]) * DAY + _clock(match[2])
        end = _weekday(match[3]) * DAY + _clock(match[4], is_end=True)
        return [(begin, begin + _length(begin, end, WEEK))]
    match = _TIMES.fullmatch(text)
    if match is not None:
        begin, end = _clock(match[2]), _clock(match[3], is_end=True)
        length = _length(begin, end, DAY)
        return [(day * DAY + begin, day * DAY + begin + length) for day in (_days(match[1]) if match[1] else range(7))]
    if _DAYS.fullmatch(text):
        return [(day * DAY, day * DAY + DAY) for day in _days(text)]
    raise ValueError(EXPECTED)


def _length(begin: int, end: int, period: int) -> int:
    if end == begin:
        raise ValueError("it begins and ends at the same time: for a whole day leave the times out, such as sat or sat..sun")
    return end - begin if end > begin else end - begin + period


def _each_week(stretches: list[_Range], name: str) -> Coverage:
    return coverage_of((start + week, end + week, name) for week in (-WEEK, 0, WEEK) for start, end in stretches)


def _refuse_whole_week(windows: list[_Window]) -> None:
    for window in windows:
        found = window.coverage.find(0, 0) if isinstance(window, _Weekly) else None
        if found is not None and found.until >= WEEK:
            names = "; ".join(dict.fromkeys(window.coverage.names))
            why = "the whole week is covered, so that no time is left: to stop a job, write enabled: false"
            raise TriggerError("blackout", names, why)


def _days(text: str) -> list[int]:
    found: dict[int, None] = {}
    for part in text.split(","):
        first, dots, last = part.partition("..")
        begin = _weekday(first)
        length = (_weekday(last) - begin) % 7 if dots else 0
        found |= dict.fromkeys((begin + index) % 7 for index in range(length + 1))
    return list(found)


def _weekday(word: str) -> int:
    for number, name in enumerate(WEEKDAYS):
        if len(word) >= 3 and name.startswith(word):
            return number
    if "-" in word:
        raise ValueError(f"{word!r} is not a weekday: a range has two dots, such as mon..fri")
    guess = did_you_mean(word, [*WEEKDAYS, *(name[:3] for name in WEEKDAYS)])
    raise ValueError(f"{word!r} is not a weekday{guess}: {EXPECTED}")


def _clock(text: str, *, is_end: bool = False) -> int:
    """Return seconds since midnight. Raise ValueError."""
    hour, minute, second = map(int, f"{text}:0".split(":")[:3])
    seconds = hour * 3600 + minute * 60 + second
    if minute > 59 or second > 59 or seconds > DAY:
        raise ValueError(f"{text} is not a time of day, such as 09:00 or 17:30")
    if seconds == DAY and not is_end:
        raise ValueError(f"{text} is an end only: a day begins at 00:00")
    return seconds


def _midnight(text: str) -> datetime:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text} is not a date: the day is not in the month, or the month is not in the year") from None
    if day.year not in YEARS:
        raise ValueError(f"{text} is too far away: years are {YEARS.start} to {YEARS.stop - 1}")
    return datetime(day.year, day.month, day.day)  # noqa: DTZ001 - on the wall clock of a zone


def _normal(text: str) -> str:
    return re.sub(r"\s*(\.\.|,)\s*", r"\1", " ".join(text.split())).lower()
