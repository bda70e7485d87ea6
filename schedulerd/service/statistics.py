"""The operation on statistics: counts of jobs and runs, and daily statistics."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from .. import __version__
from ..actions.analytics import anomalies
from ..core.clock import Clock
from ..core.models import Role, Status, to_text
from ..core.stats import percentile_of_classes
from ..engine.engine import Engine
from ..store.protocol import Store
from .roles import needs
from .serializers import series

DAY = timedelta(days=1)


class Statistics:
    """Counts jobs and runs. Its creation is the start of the daemon's uptime."""

    def __init__(self, engine: Engine, store: Store, clock: Clock) -> None:
        self._table = engine.table
        self._node = engine.node
        self._store = store
        self._clock = clock
        self._started = clock.monotonic()
        self._started_at = clock.now()

    @needs(Role.VIEWER)
    def show(self, days: int = 0, job_id: str | None = None) -> dict[str, Any]:
        """Return counts of jobs and runs, success rate, lateness and uptime.

        With `days`, also the daily statistics and the anomalies of that many past days, of one job or of all.
        """
        now = self._clock.now()
        with self._table.lock:
            states = list(self._table.states.values())
        by_status, recent = self._store.counts(), self._store.counts(now - DAY, now)
        late = self._store.lateness(now - DAY, now)
        return {
            "total_jobs": len(states),
            "enabled_jobs": sum(state.job.enabled for state in states),
            "paused_jobs": sum(state.pause is not None for state in states),
            "running_jobs": sum(bool(state.running) for state in states),
            **_totals(by_status),
            "last_24h": {
                **_totals(recent),
                "lateness_p50_seconds": percentile_of_classes(late, 50),
                "lateness_p99_seconds": percentile_of_classes(late, 99),
            },
            "uptime_seconds": round(self._clock.monotonic() - self._started, 3),
            "started_at": to_text(self._started_at),
            "node": self._node,
            "version": __version__,
            **(self._series(now, days, job_id) if days else {}),
        }

    def _series(self, now: datetime, days: int, job_id: str | None) -> dict[str, Any]:
        last = now.date() + DAY  # in some time zones the next day has begun
        found = self._store.daily((last - days * DAY).isoformat(), last.isoformat(), job_id)
        return {"days": series(found), "anomalies": anomalies(found, max((one.day for one in found), default=""))}


def _totals(by_status: dict[str, int]) -> dict[str, Any]:
    success = by_status.get(Status.SUCCESS, 0)
    failed = sum(by_status.get(status, 0) for status in (Status.FAILED, Status.TIMED_OUT, Status.ABANDONED))
    return {
        "total_runs": sum(by_status.values()),
        "successful_runs": success,
        "failed_runs": failed,
        "success_rate": round(success / (success + failed), 4) if success + failed else None,
        "runs_by_status": {str(status): by_status.get(status, 0) for status in Status},
    }
