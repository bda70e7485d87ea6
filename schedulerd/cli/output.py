"""Output of `schedulerctl`: tables for people, JSON for programs, and no control characters."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..core.units import format_duration
from .arguments import Options
from .client import Response

REFUSED = 1  # exit status
INDENT = "  "

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def print_result(options: Options, value: Any, head: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Print `value` as JSON with --json, otherwise `rows` as a table; return 0."""
    if options.json:
        print(json.dumps(value, indent=2))
        return 0
    lines = [head, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


def print_change(options: Options, response: Response, name: str) -> int:
    """Print the response to a change of what `name` names; return 0."""
    message = f"{name}: {response.body['message']}"
    print(json.dumps(response.body, indent=2) if options.json else printable_lines(message))
    return 0


def print_notes(options: Options, notes: Sequence[str]) -> int:
    """Print a line for each note, unless --json is given; return 0."""
    for note in notes if not options.json else ():
        print(printable(note))
    return 0


def printable(text: str) -> str:
    """Return `text` on one line, with spaces in place of control characters."""
    return "".join(each if each.isprintable() else " " for each in text)


def printable_lines(text: str) -> str:
    """Return `text` with its lines, and spaces in place of all other control characters.

    All lines but the first are indented, so that a message of a job cannot imitate a message of schedulerctl.
    """
    return f"\n{INDENT}".join(map(printable, text.split("\n")))


def field_rows(record: dict[str, Any], depth: int = 0) -> list[tuple[str, str]]:
    """Return the rows of a table of names and values; the fields of a nested value are indented below its name."""
    rows = []
    for name, value in record.items():
        label, nested = INDENT * depth + name, _nested(value)
        if nested:
            rows += [(label, ""), *field_rows(nested, depth + 1)]
        else:
            first, *more = _field(value).split("\n")
            rows += [(label, first), *(("", line) for line in more)]
    return rows


def _nested(value: Any) -> dict[str, Any]:
    """Return the fields of a nested value by name, the elements of a list of records by number."""
    if isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
        return {str(number): each for number, each in enumerate(value, 1)}
    return value if isinstance(value, dict) else {}


def _field(value: Any) -> str:
    if isinstance(value, str):
        return format_time(value) if _TIME.fullmatch(value) else value.rstrip("\n")
    if isinstance(value, list):
        return ", ".join(map(_field, value)) or "-"
    return "-" if value == {} else format_value(value)


def runs_table(runs: list[dict[str, Any]]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return head and rows of a table of runs."""
    head = ("SCHEDULED", "STARTED", "STATUS", "TOOK", "LATE", "ORIGIN", "ATTEMPT", "EXIT", "RUN", "ERROR")
    return head, [_run_row(run) for run in runs]


def _run_row(run: dict[str, Any]) -> Sequence[str]:
    has_started = run["status"] not in ("queued", "skipped", "missed")
    return (
        format_time(run["scheduled_at"]), format_time(run["started_at"] if has_started else None), run["status"],
        format_seconds(run["duration_seconds"]), format_seconds(run["lateness_seconds"]), run["origin"],
        str(run["attempt"]), format_value(run["exit_code"]), run["run_id"], run["error_message"] or "",
    )  # fmt: skip


def format_value(value: Any) -> str:
    """Return a value on one line, `-` for None."""
    if value is None:
        return "-"
    return json.dumps(value) if isinstance(value, (dict, list, bool)) else str(value)


def format_time(text: str | None) -> str:
    """Return a time of the API in the local timezone, to the second, `-` for None.

    The text contains the offset, so that every command that accepts a time accepts it.
    """
    if text is None:
        return "-"
    local = datetime.fromisoformat(text).astimezone().isoformat(timespec="seconds")
    return local.removesuffix("+00:00") + "Z" if local.endswith("+00:00") else local


def format_seconds(value: float | None) -> str:
    """Return a duration, `-` for None."""
    return "-" if value is None else format_duration(max(0.0, value))


def format_percent(fraction: float | None) -> str:
    """Return a fraction of 1 as percent, `-` for None."""
    return "-" if fraction is None else f"{fraction:.0%}"


def format_waiting(run: dict[str, Any]) -> str:
    """Return what a queued run waits for."""
    reasons = " and ".join(reason["text"] for reason in run["waits_for"]) or "its turn"
    return f"run {run['run_id']} waits for {reasons}"
