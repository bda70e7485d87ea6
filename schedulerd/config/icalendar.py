"""Reads iCalendar files (RFC 5545) for blackouts: the times of the events, and of recurring events until the end of 2100.

Events of whole days and times without a zone are local times in the time zone of the job. All others are instants. The
occurrences of a recurring event have the same local time in the time zone of the event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cached_property
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from ..core.text import shown
from ..triggers.blackouts import YEARS
from ..triggers.spans import Span
from ..triggers.timezones import to_instant, zone_named

MOST_SPANS = 20_000  # in a file, with all that recurs
LAST_YEAR = 2100  # until which recurring events are expanded
LONGEST_NAME = 100

_BEGIN = "BEGIN:VCALENDAR"
_FREQUENCIES = frozenset({"DAILY", "WEEKLY", "MONTHLY", "YEARLY"})
_CYCLE = 19 * 400  # years
_DATES = ("DATE-TIME", "DATE")
_KINDS = {  # value types of the properties about time (RFC 5545 section 3.8; RFC 2445 for EXRULE), the default first
    "DTSTART": _DATES,
    "DTEND": _DATES,
    "DURATION": ("DURATION",),
    "RRULE": ("RECUR",),
    "RDATE": (*_DATES, "PERIOD"),
    "EXDATE": _DATES,
    "EXRULE": ("RECUR",),
    "RECURRENCE-ID": _DATES,
}
_WHEN = re.compile(rf"\b({'|'.join(_KINDS)})\b")
_DAY = timedelta(days=1)
_NOTHING = timedelta(0)


class IcalendarError(ValueError):
    """An iCalendar text is invalid. `line` is the line of the event, the message says what is expected."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def is_icalendar(text: str) -> bool:
    """Return whether a text begins as iCalendar does."""
    return text.lstrip()[: len(_BEGIN)].upper() == _BEGIN


def too_many(what: str) -> ValueError:
    """Return the error for more periods than are accepted."""
    return ValueError(
        f"{what} more than {MOST_SPANS:,} periods until the end of {LAST_YEAR}: "
        "end its RRULE with UNTIL or COUNT, or write a weekly window such as 22:00..06:00 instead"
    )


def printable(text: str) -> str:
    """Return a text of a file as it may be shown: one short line of printable characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:LONGEST_NAME]


def spans_in(text: str) -> list[Span]:
    """Return the periods of the events of an iCalendar text. Raise IcalendarError when it is invalid."""
    spans: list[Span] = []
    events = _events(text)
    replaced: dict[str, set[date]] = {}
    for event in events:
        with _placed(event):
            if event.recurrence_id is not None:
                replaced.setdefault(event.uid, set()).add(event.recurrence_id)
    for event in events:
        with _placed(event):
            if not event.is_cancelled:
                without = set() if event.recurrence_id is not None else replaced.get(event.uid, set())
                spans += islice(event.spans(without), MOST_SPANS + 1)
                if len(spans) > MOST_SPANS:
                    raise too_many("with this event the file has")
    return spans


@contextmanager
def _placed(event: _Event) -> Iterator[None]:
    """Turn errors into IcalendarError with the line and the name of the event."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        name = f"event {event.name!r}" if event.name else "event"
        why = "a time is too far away" if isinstance(error, OverflowError) else error
        raise IcalendarError(event.line, f"{name}: {why}") from None


def _events(text: str) -> list[_Event]:
    """Return the events of an iCalendar text, in the order of the text."""
    try:
        import dateutil.rrule  # noqa: F401 - needed for recurrence rules
        from icalendar import Calendar as Parser
    except ImportError:
        hint = "install python3-icalendar and python3-dateutil, or pip install 'schedulerd[calendars]'"
        raise IcalendarError(1, f"iCalendar files need two libraries: {hint}") from None
    lines = text.split("\n")
    begin = text.lstrip().partition("\n")[0].strip()
    if begin.upper() != _BEGIN:
        raise IcalendarError(1, f"{shown(begin)} is not iCalendar: expected {_BEGIN}")
    try:
        calendars: Any = Parser.from_ical(text, multiple=True)
        found = [event for calendar in calendars for event in calendar.walk("VEVENT")]
    except Exception as error:  # the exceptions differ between versions of the library
        raise IcalendarError(1, f"is not iCalendar: {printable(str(error)) or type(error).__name__}") from None
    if len(calendars) < sum(line.strip().upper() == _BEGIN for line in lines):
        raise IcalendarError(text.rstrip().count("\n") + 1, "is cut off: expected END:VCALENDAR")
    places = [number for number, line in enumerate(lines, 1) if line.strip().upper() == "BEGIN:VEVENT"]
    places += [1] * (len(found) - len(places))
    return [_Event(component, line) for component, line in zip(found, places, strict=False)]


@dataclass(frozen=True, slots=True)
class _Zone:
    """The time zone of an event: one of the time zone database, one that the file defines, or none."""

    name: str | None = None
    own: tzinfo | None = None

    def instant(self, local: datetime) -> datetime:
        """Return the instant of `local` in UTC, or `local` itself without a zone."""
        if self.name is not None:
            return to_instant(self.name, local)
        if self.own is None:
            return local
        localize = getattr(self.own, "localize", None)  # icalendar before version 6 uses zones of pytz
        aware: datetime = localize(local) if localize else local.replace(tzinfo=self.own)
        found: datetime = aware.astimezone(UTC)
        return found

    def local(self, value: date) -> datetime:
        """Return a value of the file as local time of this zone, for a date its midnight."""
        if not isinstance(value, date):
            raise ValueError(f"{value} is invalid: expected a date, or a date and a time")
        if not isinstance(value, datetime):
            return datetime.combine(value, time())
        zone = ZoneInfo(self.name) if self.name is not None else self.own
        return (value.astimezone(zone) if zone and value.tzinfo else value).replace(tzinfo=None)


def _zone_of(value: date, tzid: str | None) -> _Zone:
    if not isinstance(value, datetime):
        return _Zone()
    if value.tzinfo is None:
        if tzid is not None:
            raise ValueError(f"TZID {tzid!r} is neither a known time zone nor defined by a VTIMEZONE before it")
        return _Zone()
    name = getattr(value.tzinfo, "key", None) or getattr(value.tzinfo, "zone", None)
    try:
        return _Zone(zone_named(str(name)).key)
    except ValueError:
        return _Zone(own=value.tzinfo)


@dataclass
class _Event:
    """A VEVENT that begins at `line`. All members raise ValueError for invalid properties."""

    component: Any
    line: int

    @property
    def name(self) -> str:
        """Return the SUMMARY."""
        found = self.component.get("SUMMARY", "")
        return printable(str(found[0] if isinstance(found, list) else found))

    @property
    def uid(self) -> str:
        """Return the UID, which an event shares with the replacements of its occurrences."""
        return str(self.component.get("UID", ""))

    @property
    def is_cancelled(self) -> bool:
        """Return whether the event is cancelled."""
        return str(self.component.get("STATUS", "")).upper() == "CANCELLED"

    @property
    def recurrence_id(self) -> date | None:
        """Return the instant or the day of the occurrence that this event replaces, or None."""
        self._refuse_broken()
        found = self._value("RECURRENCE-ID")
        if found is None:
            return None
        if self.component["RECURRENCE-ID"].params.get("RANGE"):
            raise ValueError("RECURRENCE-ID with RANGE is not supported: expected one that replaces one occurrence")
        return _moment("RECURRENCE-ID", found, self._tzid("RECURRENCE-ID"))

    def spans(self, without: set[date]) -> Iterator[Span]:
        """Yield the period of each occurrence that is not in `without`. An event without duration has none."""
        excluded = without | set(self._dates("EXDATE")) | set(self._repeats("EXRULE"))
        starts = {self._first, *self._repeats("RRULE")}
        for found in self._listed("RDATE"):
            if isinstance(found, tuple):
                yield from self._period(*found)
            else:
                starts.add(self._zone.local(found))
        for local in sorted(starts):
            first = self._zone.instant(local)
            last = self._end(local, first)
            if first < last and not {first, local, local.date()} & excluded:
                yield Span(first, last, self.name)

    def _refuse_broken(self) -> None:
        """Raise ValueError when the library could not read a property about time."""
        for name, why in self.component.errors:
            if _WHEN.search(name or why):
                raise ValueError(f"{name or 'line'} is invalid: {printable(why)}")
        for name, kinds in _KINDS.items():
            for kind in map(_kind, self._all(name)):
                if kind and kind not in kinds:
                    raise ValueError(f"{name} with VALUE={printable(kind)} is invalid: expected {' or '.join(kinds)}")

    @cached_property
    def _start(self) -> date:
        found = self._value("DTSTART")
        if found is None:
            raise ValueError("it has no DTSTART")
        if not isinstance(found, date) or found.year not in YEARS:
            raise ValueError(f"DTSTART {found} is invalid: expected such as 20261225 or 20261224T180000Z")
        return found

    @cached_property
    def _zone(self) -> _Zone:
        return _zone_of(self._start, self._tzid("DTSTART"))

    @cached_property
    def _first(self) -> datetime:
        return self._zone.local(self._start)

    @cached_property
    def _length(self) -> tuple[timedelta, timedelta]:
        """Return the duration: a part in local time, then a part in elapsed time."""
        end, duration = self._value("DTEND"), self._value("DURATION")
        is_day = not isinstance(self._start, datetime)
        if end is None and duration is None:
            return (_DAY if is_day else _NOTHING), _NOTHING
        if end is None:
            if not isinstance(duration, timedelta) or duration < _NOTHING:
                raise ValueError(f"DURATION {duration} is invalid: expected such as P1D or PT2H")
            return timedelta(days=duration.days), timedelta(seconds=duration.seconds)
        if not isinstance(end, date) or is_day == isinstance(end, datetime):
            raise ValueError(f"DTEND {end} has another type than DTSTART: expected two dates or two times")
        _zone_of(end, self._tzid("DTEND"))
        length = self._zone.local(end) - self._first
        if length < _NOTHING or end.year not in YEARS:
            raise ValueError(f"DTEND {end} is not later than DTSTART {self._start}")
        return (length or _DAY if is_day else length), _NOTHING

    def _end(self, local: datetime, first: datetime) -> datetime:
        wall, elapsed = self._length
        return (self._zone.instant(local + wall) if wall else first) + elapsed

    def _period(self, start: date, end: date | timedelta) -> Iterator[Span]:
        first = self._zone.instant(self._zone.local(start))
        last = first + end if isinstance(end, timedelta) else self._zone.instant(self._zone.local(end))
        if first < last:
            yield Span(first, last, self.name)

    def _repeats(self, name: str) -> Iterator[datetime]:
        """Yield the local times of the rules `name` until the last year."""
        for rule in self._all(name):
            for number, local in enumerate(_expanded(name, rule, self._first, self._until(rule))):
                if number >= MOST_SPANS:
                    raise too_many("it has")
                yield local

    def _until(self, rule: Any) -> datetime:
        last = datetime(LAST_YEAR, 12, 31, 23, 59, 59)  # noqa: DTZ001 - local time of the event
        found = rule.get("UNTIL")
        until = found[0] if isinstance(found, list) else found
        if until is None:
            return last
        if not isinstance(until, date):
            raise ValueError(f"UNTIL {until} is invalid: expected such as 20261231T235959Z")
        local = self._zone.local(until)
        return min(last, local if isinstance(until, datetime) else local + _DAY - timedelta(seconds=1))

    def _dates(self, name: str) -> Iterator[date]:
        for prop in self._all(name):
            tzid = getattr(prop, "params", {}).get("TZID")
            yield from (_moment(name, each.dt, tzid) for each in prop.dts)

    def _listed(self, name: str) -> list[Any]:
        return [each.dt for prop in self._all(name) for each in prop.dts]

    def _all(self, name: str) -> Iterable[Any]:
        found = self.component.get(name, [])
        return found if isinstance(found, list) else [found]

    def _value(self, name: str) -> Any:
        found = self.component.get(name)
        if isinstance(found, list):
            raise ValueError(f"it has more than one {name}")
        if found is None:
            return None
        value = found.dt if hasattr(found, "dt") else found.td
        return value.date() if isinstance(value, datetime) and found.params.get("VALUE") == "DATE" else value

    def _tzid(self, name: str) -> str | None:
        tzid = self.component[name].params.get("TZID")
        return None if tzid is None else str(tzid)


def _kind(prop: Any) -> str:
    """Return the parameter VALUE of a property, or an empty text."""
    return str(getattr(prop, "params", {}).get("VALUE", "")).upper()


def _moment(name: str, value: Any, tzid: str | None) -> date:
    """Return the value that identifies an occurrence: its instant, its local time without a zone, or its day."""
    if not isinstance(value, date):
        raise ValueError(f"{name} {value} is invalid: expected a date or a time")
    if not isinstance(value, datetime):
        return value
    zone = _zone_of(value, tzid)
    return zone.instant(zone.local(value))


def _expanded(name: str, rule: Any, first: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the local times of the rule `name` from `first` to `until`."""
    if first.year > LAST_YEAR:
        return
    # dateutil searches the next time of a rule until the year 9999, which is slow when there is none. The calendar repeats
    # every 400 years, so the search starts late.
    for late in _parsed(name, rule, first.replace(year=first.year + _CYCLE)):
        local = late.replace(year=late.year - _CYCLE)
        if local > until:
            return
        yield local


def _parsed(name: str, rule: Any, first: datetime) -> Iterator[datetime]:
    from dateutil.rrule import rrulestr

    if not {str(each).upper() for each in rule.get("FREQ", [])} <= _FREQUENCIES:
        expected = f"expected FREQ={', '.join(sorted(_FREQUENCIES))} (for what recurs within a day write a weekly window)"
        raise ValueError(f"{name} with FREQ={rule['FREQ'][0]} is not supported: {expected}")
    if any(isinstance(number, int) and number < 1 for number in rule.get("INTERVAL", [1])):
        raise ValueError(f"{name} is invalid: INTERVAL is at least 1")
    try:
        parts = rule.to_ical().decode().split(";")
        yield from rrulestr(";".join(part for part in parts if not part.startswith("UNTIL=")), dtstart=first)
    except Exception as error:  # the exceptions differ between versions of the libraries
        raise ValueError(f"{name} is invalid: {printable(str(error))}, expected such as FREQ=YEARLY") from None
