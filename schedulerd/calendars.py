"""Read calendar files for blackouts: iCalendar, as calendar programs write it, or YAML with dates."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from .errors import ConfigError, Problem, SchedulerdError
from .icalendars import MOST_SPANS, IcalendarError, is_icalendar, one_line, spans_in, too_many
from .schema import Path, shown
from .spans import Calendar, Span
from .windows import span_from
from .yamlfile import Document

LARGEST_FILE = 4 * 1024 * 1024  # bytes
MOST_TOLD = 3  # mistakes in one file

_ENTRY_EXPECTED = "expected a list of dates, each such as 2026-12-25 or 2026-12-25: Christmas"


class CalendarFileError(SchedulerdError):
    """A calendar file cannot be read or has a mistake; names the file, the line and what is expected."""


def read_calendar(name: str, path: str) -> Calendar:
    """Return the calendar in the file `path`. Raise CalendarFileError when it cannot be read or has a mistake."""
    text = _read(path).decode("utf-8-sig", "replace")
    if not (path.lower().endswith(".ics") or is_icalendar(text)):
        return Calendar(name, tuple(_yaml_spans(path)))
    try:
        return Calendar(name, tuple(spans_in(text)))
    except IcalendarError as error:
        raise _error(path, error.line, str(error)) from None


def _error(path: str, line: int, text: str) -> CalendarFileError:
    return CalendarFileError(str(Problem(path, line, 1, "", text)))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _error(path, 1, "is not a regular file")
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise _error(path, 1, f"cannot be read: {error.strerror}") from None
    if len(data) > LARGEST_FILE:
        raise _error(path, 1, f"is larger than {LARGEST_FILE // 1024 // 1024} MiB")
    return data


def _yaml_spans(path: str) -> list[Span]:
    try:
        document = Document(path)
    except ConfigError as error:
        raise CalendarFileError(str(error)) from None
    problems, spans = list(document.problems), []
    if not isinstance(document.value, (list, Mapping)):
        problems.append(document.problem((), f"{_ENTRY_EXPECTED}, not {shown(document.value)}"))
    for where, text, name in _entries(document.value):
        try:
            spans.append(_entry(text, name))
        except ValueError as error:
            problems.append(document.problem(where, f"{shown(text)}: {error}"))
    if len(spans) > MOST_SPANS:
        problems.append(document.problem((), str(too_many("the file has"))))
    if problems:
        more = f"; and {len(problems) - MOST_TOLD} more" if len(problems) > MOST_TOLD else ""
        raise CalendarFileError("; ".join(map(str, problems[:MOST_TOLD])) + more)
    return spans


def _entries(value: object) -> Iterator[tuple[Path, object, object]]:
    """Yield where each entry stands, its dates, and its name."""
    if isinstance(value, Mapping):
        yield from (((text,), text, name) for text, name in value.items())
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, Mapping):
                yield from (((index, *where), text, name) for where, text, name in _entries(item))
            else:
                yield (index,), item, None


def _entry(text: object, name: object) -> Span:
    if not isinstance(text, str):
        raise ValueError(_ENTRY_EXPECTED)
    if isinstance(name, (list, Mapping)):
        raise ValueError(f"the name of a date is a text, not {shown(name)}")
    return span_from(text, "" if name is None else one_line(str(name)))
