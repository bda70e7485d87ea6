"""The command `schedulerctl stats`."""

from __future__ import annotations

from typing import Any

from ..core.units import BYTES
from .arguments import Commands, Options
from .client import Client
from .output import field_rows, format_seconds, print_notes, print_result

MEGABYTE = BYTES["M"]
_WITHOUT_TODAY = "today is not included: a day is added by the first analytics job that runs after it"
_NO_DAYS = f"no statistics of these days yet: {_WITHOUT_TODAY}"


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    stats = commands.add("stats", _stats, "counts of runs, success rate, lateness, uptime")
    stats.add_argument("--days", type=int, metavar="N", help="the daily statistics of the last N days instead")
    stats.add_argument("--job", help="of one job only")


def _stats(client: Client, options: Options) -> int:
    stats = client.get("stats", days=options.days, job=options.job)
    days, anomalies = stats.get("days"), stats.get("anomalies", {})
    if days is None:
        return print_result(options, stats, ("FIGURE", "VALUE"), field_rows(stats))
    rows = [_row(day["day"], job_id, figures) for day in days for job_id, figures in day["jobs"].items()]
    head = ("DAY", "JOB", "SUCCESS", "OTHER", "RECORDS", "P50", "P95", "MAX", "LATE P95", "OUTPUT")
    print_result(options, stats, head, rows)
    print_notes(options, [f"{job_id}: {reason}" for job_id, reasons in anomalies.items() for reason in reasons])
    return print_notes(options, [_WITHOUT_TODAY if rows else _NO_DAYS])


def _row(day: str, job_id: str, figures: dict[str, Any]) -> tuple[str, ...]:
    success = figures["runs"].get("success", 0)
    return (
        day, job_id, str(success), str(sum(figures["runs"].values()) - success), str(figures["records_processed"]),
        format_seconds(figures["duration_p50"]), format_seconds(figures["duration_p95"]),
        format_seconds(figures["duration_max"]), format_seconds(figures["lateness_p95"]),
        f"{figures['output_bytes'] / MEGABYTE:.1f} MB",
    )  # fmt: skip
