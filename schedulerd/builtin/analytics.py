"""The built-in `analytics`: what happened on the past days, per job, into `daily_stats`.

A day is a day in the zone of the analytics job. Computing a day again gives the same rows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ..figures import percentile
from ..model import Result, Status
from ..store import DayOfJob, Ended, durable
from . import Context


def run(context: Context) -> Result:
    """Compute the last `days` whole days."""
    zone = ZoneInfo(context.job.timezone)
    today = context.clock.now().astimezone(zone).date()
    seen = 0
    days: dict[str, int] = {}
    for back in range(context.options["days"], 0, -1):
        context.check_stop()
        day = today - timedelta(days=back)
        start, end = bounds(day, zone)
        jobs = summary(day.isoformat(), context.store.ended_between(start, end))
        durable(context.store.save_day(day.isoformat(), jobs))
        days[day.isoformat()] = sum(sum(one.runs.values()) for one in jobs)
        seen += days[day.isoformat()]
    return Result(Status.SUCCESS, seen, f"{seen} runs on {len(days)} days", details={"days": days})


def bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the instants at which a local day begins and ends (23 and 25 hours apart on two days of most years)."""
    start, end = (datetime.combine(each, time(), zone).astimezone(UTC) for each in (day, day + timedelta(days=1)))
    return start, end


def summary(day: str, rows: Iterable[Ended]) -> list[DayOfJob]:
    """Return one element for each job that has rows."""
    by_job: dict[str, list[Ended]] = defaultdict(list)
    for row in rows:
        by_job[row.job_id].append(row)
    return [_of_job(day, job_id, its) for job_id, its in sorted(by_job.items())]


def _of_job(day: str, job_id: str, rows: list[Ended]) -> DayOfJob:
    durations = [row.duration_seconds for row in rows if row.duration_seconds is not None]
    late = [row.lateness_seconds for row in rows if row.lateness_seconds is not None]
    return DayOfJob(
        day=day, job_id=job_id, runs=dict(Counter(row.status for row in rows)),
        records_processed=sum(row.records_processed for row in rows),
        duration_p50=percentile(durations, 50), duration_p95=percentile(durations, 95),
        lateness_p50=percentile(late, 50), lateness_p99=percentile(late, 99),
    )  # fmt: skip
