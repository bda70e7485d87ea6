"""Views of jobs, runs and figures in the format of the API: as plain values, and as JSON.

The JSON of a job is rendered once for each change.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from ..core.models import Run, to_text
from ..engine.run_queue import since
from ..engine.state import JobState, JobTable
from ..store.outage_journal import Backlog
from ..store.protocol import DailyFigures


def run_view(run: Run) -> dict[str, Any]:
    """Return a run as a history item: the eight fields of the founding API and further ones.

    By contract, `started_at` is never null. For a run that was not started, it is the time of that decision;
    `lateness_seconds` and `duration_seconds` are null.
    """
    lateness = run.lateness_seconds
    return {
        "job_id": run.job_id,
        "status": run.status,
        "started_at": to_text(run.started_at or run.queued_at),
        "finished_at": to_text(run.finished_at) if run.finished_at else None,
        "duration_seconds": None if run.duration_seconds is None else round(run.duration_seconds, 6),
        "records_processed": run.records_processed,
        "error_message": run.error_message,
        "details": run.details,
        "run_id": run.run_id,
        "scheduled_at": to_text(run.scheduled_at) if run.scheduled_at else None,
        "origin": run.origin,
        "attempt": run.attempt,
        "lateness_seconds": None if lateness is None else round(lateness, 6),
        "exit_code": run.exit_code,
        "node": run.node,
    }


def job_view(state: JobState) -> dict[str, Any]:
    """Return a job: the nine fields of the founding API and further ones."""
    job, pause = state.job, state.pause
    shows_next = state.next_run_at is not None and pause is None
    return {
        "job_id": job.job_id,
        "name": job.name,
        "description": job.description,
        "trigger_type": job.trigger.kind if job.trigger else None,
        "next_run_time": to_text(state.next_run_at) if shows_next and state.next_run_at else None,
        "is_paused": pause is not None,
        "is_running": bool(state.running),
        "enabled": job.enabled,
        "last_result": run_view(state.last_result) if state.last_result else None,
        "trigger": job.trigger.text if job.trigger else None,
        "action": job.action,
        **({"restores": job.options["of"]} if job.action == "restore_drill" else {}),
        "timezone": job.timezone,
        "queued": state.waiting,
        "pause": {
            "paused_at": to_text(pause.paused_at),
            "by": pause.actor,
            "reason": pause.reason,
            "until": to_text(pause.until) if pause.until else None,
        }
        if pause
        else None,
    }  # fmt: skip


def backlog_view(backlog: Backlog) -> dict[str, Any] | None:
    """Return the number, size and begin of the changes in the outage journal; None when it is empty."""
    if not backlog.changes or backlog.since is None:
        return None
    return {"changes": backlog.changes, "size_bytes": backlog.size_bytes, "since": to_text(backlog.since)}


def unwritten_view(due: int, ends: int, accepts_runs: bool) -> dict[str, Any] | None:
    """Return the numbers of due occurrences and ends of runs that cannot be written to the history or the outage journal.

    Return None when there are none and new runs are accepted.
    """
    return {"due": due, "ends": ends} if due or ends or not accepts_runs else None


CHARTED = ("cpu_percent", "load1", "memory_percent", "swap_percent", "disk_percent")


def queue_view(not_started: Iterable[Run], now: datetime) -> dict[str, Any]:
    """Return the number of waiting runs and the longest wait in seconds. A retry waits from its scheduled time on."""
    ages = [age for run in not_started if (age := (now - since(run)).total_seconds()) >= 0]
    return {"waiting": len(ages), "oldest_seconds": round(max(ages), 3) if ages else None}


def health_point(run: Run) -> dict[str, Any]:
    """Return a health check as a point of a chart."""
    services, figures = run.details["services"], run.details.get("system") or {}
    return {
        "checked_at": to_text(run.finished_at or run.queued_at),
        "run_id": run.run_id,
        "status": run.details.get("status"),
        "services": {
            name: {"status": one.get("status"), "latency_ms": one.get("latency_ms")} for name, one in services.items()
        },
        "system": {name: figures.get(name) for name in CHARTED},
        "changes": run.details.get("changes", []),
    }


def series(days: Iterable[DailyFigures]) -> list[dict[str, Any]]:
    """Return days as points of a chart, oldest first: for each day, the sums of all jobs and the figures of each job."""
    found: dict[str, list[DailyFigures]] = {}
    for one in days:
        found.setdefault(one.day, []).append(one)
    return [{"day": day, **_sums(jobs), "jobs": {one.job_id: _day_view(one) for one in jobs}} for day, jobs in found.items()]


def _sums(jobs: list[DailyFigures]) -> dict[str, Any]:
    runs: Counter[str] = Counter()
    for one in jobs:
        runs.update(one.runs)
    return {
        "total_runs": sum(runs.values()),
        "runs_by_status": dict(runs),
        "records_processed": sum(one.records_processed for one in jobs),
        "output_bytes": sum(one.output_bytes for one in jobs),
    }


def _day_view(one: DailyFigures) -> dict[str, Any]:
    return {name: value for name, value in asdict(one).items() if name not in ("day", "job_id")}


def to_bytes(value: Any) -> bytes:
    """Return `value` as JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str).encode("utf-8", "replace")


class JobList:
    """The list of all jobs as JSON. Only jobs that have changed since the last request are rendered again."""

    def __init__(self, table: JobTable) -> None:
        self._table = table
        self._version = -1
        self._bytes = b"[]"
        self._etag = ""

    def render(self) -> tuple[bytes, str]:
        """Return the JSON and its entity tag."""
        if self._version != self._table.version:
            with self._table.lock:
                version = self._table.version
                parts = [self.one(state) for state in self._table.states.values()]
            self._bytes = b"[" + b",".join(parts) + b"]"
            self._etag = '"' + hashlib.blake2b(self._bytes, digest_size=12).hexdigest() + '"'
            self._version = version
        return self._bytes, self._etag

    def one(self, state: JobState) -> bytes:
        """Return the JSON of one job. The caller holds the table's lock."""
        if state.rendered is None:
            state.rendered = to_bytes(job_view(state))
        return state.rendered
