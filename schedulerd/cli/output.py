"""What `schedulerctl` prints: tables for people, JSON for programs, and nothing that would steer a terminal."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..core.units import format_duration

Options = argparse.Namespace
REFUSED = 1  # exit status
INDENT = "  "

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def show(options: Options, value: Any, head: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Print `value` as JSON, or `rows` as a table."""
    if options.json:
        print(json.dumps(value, indent=2))
        return 0
    lines = [head, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


def printable(text: str) -> str:
    """Return `text` on one line, with nothing in it that would steer a terminal."""
    return "".join(each if each.isprintable() else " " for each in text)


def printable_lines(text: str) -> str:
    """Return `text` in its lines, with nothing else in it that would steer a terminal.

    All but the first are indented: what a job says cannot pass for a line of ours.
    """
    return f"\n{INDENT}".join(map(printable, text.split("\n")))


def plain(value: Any) -> str:
    """Return a value on one line, `-` for none."""
    if value is None:
        return "-"
    return json.dumps(value) if isinstance(value, (dict, list, bool)) else str(value)


def moment(text: str | None) -> str:
    """Return an instant of the API in the terminal's zone, to the second, `-` for none.

    Its offset stands with it, so that it can be handed to any command that takes a time.
    """
    if text is None:
        return "-"
    local = datetime.fromisoformat(text).astimezone().isoformat(timespec="seconds")
    return local.removesuffix("+00:00") + "Z" if local.endswith("+00:00") else local


def fields(record: dict[str, Any], depth: int = 0) -> list[tuple[str, str]]:
    """Return a record as rows of name and value; what a value holds is indented below its name."""
    rows = []
    for name, value in record.items():
        label, inner = INDENT * depth + name, _inner(value)
        if inner:
            rows += [(label, ""), *fields(inner, depth + 1)]
        else:
            first, *more = _field(value).split("\n")
            rows += [(label, first), *(("", line) for line in more)]
    return rows


def _inner(value: Any) -> dict[str, Any]:
    """Return what is shown below a value, by name; a list of records by number."""
    if isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
        return {str(number): each for number, each in enumerate(value, 1)}
    return value if isinstance(value, dict) else {}


def _field(value: Any) -> str:
    if isinstance(value, str):
        return moment(value) if _INSTANT.fullmatch(value) else value.rstrip("\n")
    if isinstance(value, list):
        return ", ".join(map(_field, value)) or "-"
    return "-" if value == {} else plain(value)


def seconds(value: float | None) -> str:
    """Return a duration, `-` for none."""
    return "-" if value is None else format_duration(max(0.0, value))


def remark(options: Options, notes: Sequence[str]) -> int:
    """Print what else there is to say, for people."""
    for note in notes if not options.json else ():
        print(printable(note))
    return 0


def runs_table(runs: list[dict[str, Any]]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return head and rows of a table of runs."""
    head = ("SCHEDULED", "STARTED", "STATUS", "TOOK", "LATE", "ORIGIN", "ATTEMPT", "EXIT", "RUN", "ERROR")
    return head, [_run_row(run) for run in runs]


def _run_row(run: dict[str, Any]) -> Sequence[str]:
    has_started = run["status"] not in ("queued", "skipped", "missed")
    return (
        moment(run["scheduled_at"]), moment(run["started_at"] if has_started else None), run["status"],
        seconds(run["duration_seconds"]), seconds(run["lateness_seconds"]), run["origin"], str(run["attempt"]),
        plain(run["exit_code"]), run["run_id"], run["error_message"] or "",
    )  # fmt: skip


def waiting_text(each: dict[str, Any]) -> str:
    """Return what a run waits for, in words."""
    why = " and ".join(one["text"] for one in each["waits_for"]) or "its turn"
    return f"run {each['run_id']} waits for {why}"


def done(options: Options, answer: Any, what: str) -> int:
    """Print what a change did, to `what`."""
    print(json.dumps(answer.body, indent=2) if options.json else printable_lines(f"{what}: {answer.body['message']}"))
    return 0


def percent(progress: float | None) -> str:
    """Return a share of 1 as percent, `-` for none."""
    return "-" if progress is None else f"{progress:.0%}"
