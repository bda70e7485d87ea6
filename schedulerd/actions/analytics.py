"""The built-in `analytics`: writes the daily statistics of each job into `daily_stats`.

A day is a day in the time zone of the job. Computing a day again gives the same rows, even after `cleanup` has deleted runs.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ..core.models import Result, Status
from ..core.stats import percentile
from ..core.units import counted
from ..process.result_file import LARGEST_COUNT
from ..store.protocol import DailyFigures, EndedRun, durable
from .anomalies import DayFigures, unusual
from .context import Context

log = logging.getLogger(__name__)

COMPARED_DAYS = 28  # before a day, which define what is usual


def run(context: Context) -> Result:
    """Compute the statistics of the last `days` whole days of each job."""
    found: dict[str, list[DailyFigures]] = defaultdict(list)
    zones = {job_id: job.timezone for job_id, job in context.config.jobs.items()}
    for zone in sorted({context.job.timezone, *zones.values()}):
        for day in _past_days(context.clock.now(), ZoneInfo(zone), context.options["days"]):
            context.check_stop()
            ended = context.store.ended_between(*bounds(day, ZoneInfo(zone)))
            own = (row for row in ended if zones.get(row.job_id, context.job.timezone) == zone)
            found[day.isoformat()] += summary(day.isoformat(), own, zone)
    days: dict[str, int] = {}
    known = context.store.daily(min(found), _later(max(found)))
    for name, jobs in sorted(found.items()):
        context.check_stop()
        kept = merged((one for one in known if one.day == name), new_days(known, jobs))
        durable(context.store.save_day(name, kept))
        days[name] = sum(total(one) for one in kept)
    odd = anomalies(context.store.daily(_earliest(days), max(days)), max(days))
    for job_id, why in odd.items():
        log.warning("job %s: anomaly on %s: %s", job_id, max(days), "; ".join(why))
    seen = sum(days.values())
    message = f"{counted(seen, 'run')} on {counted(len(days), 'day')}; today is not included"
    return Result(Status.SUCCESS, seen, message, details={"days": days, "anomalies": odd})


def _later(day: str) -> str:
    """Return a day that has begun in no time zone while it is `day` in one of them."""
    return (date.fromisoformat(day) + timedelta(days=2)).isoformat()


def _earliest(days: Iterable[str]) -> str:
    return (date.fromisoformat(max(days)) - timedelta(days=COMPARED_DAYS)).isoformat()


def _past_days(now: datetime, zone: ZoneInfo, count: int) -> list[date]:
    """Return the last `count` days that have ended in a time zone, oldest first."""
    today = now.astimezone(zone).date()
    return [today - timedelta(days=back) for back in range(count, 0, -1)]


def bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the instants at which a local day begins and ends, which are 23 to 25 hours apart."""
    start, end = (datetime.combine(each, time(), zone).astimezone(UTC) for each in (day, day + timedelta(days=1)))
    return start, end


def total(day: DailyFigures) -> int:
    """Return the number of runs of a job on a day."""
    return sum(day.runs.values())


def merged(old: Iterable[DailyFigures], new: Iterable[DailyFigures]) -> list[DailyFigures]:
    """Return the statistics of a day to store: for each job, those with more runs. Pure.

    An end is never revoked: when there are fewer runs than before, `cleanup` has deleted some.
    """
    found = {one.job_id: one for one in old}
    for one in new:
        if one.job_id not in found or total(one) >= total(found[one.job_id]):
            found[one.job_id] = one
    return [one for _, one in sorted(found.items())]


def new_days(known: Iterable[DailyFigures], jobs: Iterable[DailyFigures]) -> list[DailyFigures]:
    """Return the statistics of a day whose runs are not counted in another time zone already. Pure.

    The time zone of a job changes with the configuration; a removed job has the time zone of the analytics job. Up to
    the last day that is stored in the former time zone, its runs are counted there.
    """
    last: dict[str, dict[str | None, str]] = defaultdict(dict)
    for one in known:
        last[one.job_id][one.timezone] = max(one.day, last[one.job_id].get(one.timezone, ""))

    def is_new(one: DailyFigures) -> bool:
        return all(zone in (None, one.timezone) or day < one.day for zone, day in last[one.job_id].items())

    return list(filter(is_new, jobs))


def anomalies(days: Iterable[DailyFigures], name: str) -> dict[str, list[str]]:
    """Return the anomalies of the day `name` by job, compared with the days before it. Pure."""
    by_job: dict[str, dict[str, DailyFigures]] = defaultdict(dict)
    for one in days:
        by_job[one.job_id][one.day] = one
    found = {}
    for job_id, its in sorted(by_job.items()):
        before = [_figures(one) for day, one in its.items() if day < name]
        found[job_id] = unusual(before, _figures(its[name])) if name in its else []
    return {job_id: why for job_id, why in found.items() if why}


def _figures(day: DailyFigures) -> DayFigures:
    return DayFigures(day.runs.get(Status.SUCCESS, 0), day.records_processed, day.duration_p50)


def summary(day: str, rows: Iterable[EndedRun], zone: str) -> list[DailyFigures]:
    """Return the statistics of each job that has rows on a day of a time zone. Pure."""
    by_job: dict[str, list[EndedRun]] = defaultdict(list)
    for row in rows:
        by_job[row.job_id].append(row)
    return [_of_job(day, job_id, its, zone) for job_id, its in sorted(by_job.items())]


def _of_job(day: str, job_id: str, rows: list[EndedRun], zone: str) -> DailyFigures:
    durations = [row.duration_seconds for row in rows if row.duration_seconds is not None]
    late = [row.lateness_seconds for row in rows if row.lateness_seconds is not None]
    runs: Mapping[str, int] = dict(Counter(row.status for row in rows))
    return DailyFigures(
        day=day, job_id=job_id, runs=runs, records_processed=min(LARGEST_COUNT, sum(row.records_processed for row in rows)),
        duration_p50=percentile(durations, 50), duration_p95=percentile(durations, 95),
        lateness_p50=percentile(late, 50), lateness_p99=percentile(late, 99),
        duration_max=max(durations, default=None), lateness_p95=percentile(late, 95),
        output_bytes=min(LARGEST_COUNT, sum(row.output_bytes for row in rows)), timezone=zone,
    )  # fmt: skip
