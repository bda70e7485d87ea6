"""Reads calendar files for blackouts: iCalendar, or YAML with dates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..core.errors import ConfigError, Problem, SchedulerdError
from ..core.text import shown
from ..triggers.blackouts import span_from
from ..triggers.spans import Calendar, Span
from .fields import Path
from .files import Files
from .icalendar import MOST_SPANS, IcalendarError, is_icalendar, printable, spans_in, too_many
from .yaml import Document

MAX_REPORTED = 3  # mistakes of one file

_ENTRY_EXPECTED = "expected a list of dates, each such as 2026-12-25 or 2026-12-25: Christmas"


class CalendarFileError(SchedulerdError):
    """A calendar file cannot be read or has a mistake. The message has the file, the line and what is expected."""


def read_calendar(name: str, path: str, files: Files) -> Calendar:
    """Return the calendar in the file `path`. Raise CalendarFileError when it cannot be read or has a mistake."""
    try:
        text = files.calendar(path).decode("utf-8-sig", "replace")
        if not (path.lower().endswith(".ics") or is_icalendar(text)):
            return Calendar(name, tuple(_yaml_spans(Document(path, files.yaml(path)))))
        return Calendar(name, tuple(spans_in(text)))
    except ConfigError as error:
        raise CalendarFileError(str(error)) from None
    except IcalendarError as error:
        raise CalendarFileError(str(Problem(path, error.line, 1, "", str(error)))) from None


def _yaml_spans(document: Document) -> list[Span]:
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
        more = f"; and {len(problems) - MAX_REPORTED} more" if len(problems) > MAX_REPORTED else ""
        raise CalendarFileError("; ".join(map(str, problems[:MAX_REPORTED])) + more)
    return spans


def _entries(value: object) -> Iterator[tuple[Path, object, object]]:
    """Yield the path, the dates and the name of each entry."""
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
    return span_from(text, "" if name is None else printable(str(name)))
