"""The operations on health: the state of the daemon together with the last health check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..actions.last_checks import LastChecks, is_check
from ..config.status import ConfigState
from ..core.clock import Clock
from ..core.errors import NotFoundError
from ..core.models import Actor, Role, to_text
from ..engine.engine import Engine
from ..engine.manual_runs import ManualRun
from ..store.protocol import Store
from .jobs import Jobs
from .roles import needs
from .serializers import backlog_view, health_point, queue_view, unwritten_view

HEALTH_CHECK = "health_check"


@dataclass(frozen=True, slots=True)
class Monitors:
    """What the daemon reports about its own parts, each in words, None or empty when all is well.

    `check` runs a health check at once. `capacity` returns the figures of file descriptors.
    """

    check: Callable[[], dict[str, Any]]
    keepers: Callable[[], str | None]
    capacity: Callable[[], dict[str, Any]]
    troubles: Callable[[], list[str]]
    loop: Callable[[], str | None]


class Health:
    """The health of the daemon and of what its jobs depend on."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        clock: Clock,
        config_state: ConfigState,
        checks: LastChecks,
        monitors: Monitors,
        jobs: Jobs,
    ) -> None:
        self._table = engine.table
        self._engine = engine
        self._store = store
        self._clock = clock
        self._config = config_state
        self._checks = checks
        self._monitors = monitors
        self._jobs = jobs

    @needs(Role.VIEWER)
    def show(self, actor: Actor) -> dict[str, Any]:
        """Return the last health check, its age in seconds, and the state of the daemon.

        A check is made when there was none before. Only an operator receives the errors of the configuration; a viewer
        receives their number.
        """
        last = self._checks.newest(self._check_jobs())
        if last is None:
            details, checked_at = self._monitors.check(), self._clock.now()
        else:
            details, checked_at = dict(last.details), last.checked_at
        own = self._daemon_state(actor.role >= Role.OPERATOR)
        status = details["status"] if own["loop"] == "ok" and own["unwritten"] is None else "unhealthy"
        if status == "healthy" and not own["is_well"]:
            status = "degraded"
        return {
            "status": status,
            "services": details["services"],
            "system": details["system"],
            "checked_at": to_text(checked_at),
            "age_seconds": round(last.age_seconds(self._clock.now(), self._clock.monotonic()), 3) if last else 0.0,
            "job_id": last.job_id if last else None,
            "scheduler": own,
        }

    @needs(Role.OPERATOR)
    def refresh(self, actor: Actor) -> list[ManualRun]:
        """Start a run of each job that checks health. Raise StoppingError or StoreError."""
        return [self._jobs.trigger(job_id, actor) for job_id in self._check_jobs()]

    @needs(Role.VIEWER)
    def history(self, job_id: str | None, limit: int, before: str | None) -> list[dict[str, Any]]:
        """Return the checks of a job as points of a chart, newest first. The default is the first job that checks health.

        Raise NotFoundError for a job that checks no health.
        """
        jobs = self._check_jobs()
        if job_id is None and not jobs:
            return []
        if job_id is not None and job_id not in jobs:
            raise NotFoundError(f"there is no job {job_id!r} with a health_check")
        return [health_point(run) for run in self._store.history(job_id or jobs[0], limit, before) if is_check(run)]

    def _check_jobs(self) -> list[str]:
        with self._table.lock:
            return [job_id for job_id, state in self._table.states.items() if state.job.action == HEALTH_CHECK]

    def _daemon_state(self, is_operator: bool) -> dict[str, Any]:
        store, config, monitors = self._store, self._config, self._monitors
        trouble, alarm, keepers, troubles = store.trouble, store.alarm, monitors.keepers(), monitors.troubles()
        loop, descriptors = monitors.loop(), monitors.capacity()
        unwritten = unwritten_view(self._engine.recorder.unwritten.count(), store.ends_in_memory, store.accepts_runs)
        faults = (trouble, alarm, keepers, loop, troubles, descriptors["trouble"], unwritten, config.is_unwell)
        cause = trouble if is_operator else "see the daemon's log"
        return {
            "is_well": not any(faults),
            "store": "ok" if trouble is None else f"the store cannot be written: {cause}",
            "store_alarm": alarm,
            "keepers": keepers or "ok",
            "descriptors": descriptors,
            "loop": loop or "ok",
            "troubles": troubles,
            "backlog": backlog_view(store.backlog),
            "unwritten": unwritten,
            "queue": queue_view(self._table.not_started(), self._clock.now()),
            "config": config.path,
            "config_loaded_at": to_text(config.loaded_at),
            "config_problems": config.problems if is_operator else [],
            "config_problem_count": len(config.problems),
            "config_notice": config.notice,
            "config_is_copy": config.is_copy,
            "config_copy_error": config.copy_error,
            "limits_not_kept": config.limits_not_kept,  # by job; does not affect `status`
        }
