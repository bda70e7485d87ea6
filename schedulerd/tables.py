"""What `schedulerctl` prints: tables for people, JSON for programs, and nothing that would steer a terminal."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from .durations import format_duration

Options = argparse.Namespace
REFUSED = 1  # exit status


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
    """Return `text` with its lines as they are, and with nothing else in it that would steer a terminal."""
    return "\n".join(map(printable, text.split("\n")))


def plain(value: Any) -> str:
    """Return a value on one line, `-` for none."""
    if value is None:
        return "-"
    return json.dumps(value) if isinstance(value, (dict, list, bool)) else str(value)


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
    head = ("SCHEDULED", "STARTED", "STATUS", "TOOK", "LATE", "ORIGIN", "EXIT", "RUN", "ERROR")
    return head, [_run_row(run) for run in runs]


def _run_row(run: dict[str, Any]) -> Sequence[str]:
    has_started = run["status"] not in ("queued", "skipped", "missed")
    return (
        run["scheduled_at"] or "-", run["started_at"] if has_started else "-", run["status"],
        seconds(run["duration_seconds"]), seconds(run["lateness_seconds"]), run["origin"], plain(run["exit_code"]),
        run["run_id"], run["error_message"] or "",
    )  # fmt: skip


def done(options: Options, answer: Any, what: str) -> int:
    """Print what a change did, to `what`."""
    print(json.dumps(answer.body, indent=2) if options.json else printable_lines(f"{what}: {answer.body['message']}"))
    return 0


def percent(progress: float | None) -> str:
    """Return a share of 1 as percent, `-` for none."""
    return "-" if progress is None else f"{progress:.0%}"
