"""The operations on jobs: list, show, history, trigger, pause, resume."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from datetime import datetime
from typing import Any

from ..config.status import ConfigState
from ..core.clock import Clock
from ..core.errors import InvalidError
from ..core.misfires import PAUSED
from ..core.models import Actor, Pause, Role, Status, to_text
from ..engine.engine import Engine
from ..engine.manual_runs import ManualRun, ManualRuns
from ..store.protocol import Store, durable
from .durability import when_durable
from .roles import needs
from .run_lookup import RunLookup
from .serializers import JobList, run_view

log = logging.getLogger(__name__)


class Jobs:
    """The jobs of the configuration in force."""

    def __init__(
        self,
        engine: Engine,
        manual_runs: ManualRuns,
        store: Store,
        clock: Clock,
        lookup: RunLookup,
        config_state: ConfigState,
    ) -> None:
        self._table = engine.table
        self._engine = engine
        self._manual_runs = manual_runs
        self._store = store
        self._clock = clock
        self._lookup = lookup
        self._config = config_state
        self._job_list = JobList(engine.table)

    @needs(Role.VIEWER)
    def list_jobs(self) -> tuple[bytes, str]:
        """Return all jobs as JSON, with an entity tag."""
        return self._job_list.render()

    @needs(Role.VIEWER)
    def notice(self) -> str | None:
        """Return a warning about the configuration that accompanies the list of jobs; None without errors."""
        return self._config.notice

    @needs(Role.VIEWER)
    def show(self, job_id: str) -> bytes:
        """Return one job as JSON. Raise NotFoundError."""
        with self._table.lock:
            return self._job_list.one(self._table.get(job_id))

    @needs(Role.VIEWER)
    def history(
        self, job_id: str, limit: int, before: str | None = None, statuses: list[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return a page of the runs of a job, newest first. Raise NotFoundError for an unknown job."""
        self._table.get(job_id)
        return list(map(run_view, self._lookup.page(limit, before, statuses, job_id)))

    @needs(Role.OPERATOR)
    def trigger(self, job_id: str, actor: Actor, key: str | None = None, params: Any = None) -> ManualRun:
        """Start a run of a job with `params` (a mapping, or None). Raise NotFoundError, InvalidError or StoppingError."""
        asked = self._manual_runs.trigger(job_id, actor, key, params)
        message = "job %s: triggered by %s, run %s"
        when_durable(asked.recorded, lambda run: log.info(message, job_id, actor.name, run.run_id))
        return asked

    @needs(Role.OPERATOR)
    def pause(
        self, job_id: str, actor: Actor, reason: str | None, until: datetime | None
    ) -> tuple[Future[None], Pause | None]:
        """Pause a job. Return the change, and the pause that was in force before.

        Pausing a paused job replaces the reason and the end of its pause, and keeps the beginning.

        Raise NotFoundError or InvalidError.
        """
        now = self._clock.now()
        if until is not None and until <= now:
            raise InvalidError(["body", "until"], "Input should be in the future", to_text(until))
        before = self._pause_of(job_id)
        since = now if before is None else before.paused_at
        done = self._engine.pauses.set(job_id, Pause(since, actor.name, reason, until))
        because = f": {reason}" if reason else ""
        when_durable(done, lambda _: log.info("job %s: paused by %s%s", job_id, actor.name, because))
        return done, before

    def _pause_of(self, job_id: str) -> Pause | None:
        with self._table.lock:
            return self._table.get(job_id).pause

    @needs(Role.OPERATOR)
    def resume(self, job_id: str, actor: Actor) -> tuple[Future[None], Pause | None]:
        """Resume a job. Return the change, and the pause that was in force before; None when there was none.

        Raise NotFoundError.
        """
        before = self._pause_of(job_id)
        done = self._engine.pauses.set(job_id, None)
        when_durable(done, lambda _: log.info("job %s: resumed by %s", job_id, actor.name))
        return done, before

    @needs(Role.OPERATOR)
    def resume_and_catch_up(self, job_id: str, actor: Actor) -> bool:
        """Resume a job, and start the newest occurrence that its pause skipped. Return whether there was one.

        Raise NotFoundError.
        """
        done, pause = self.resume(job_id, actor)
        durable(done)
        newest = self._store.history(job_id, 1, statuses=[Status.SKIPPED])
        is_due = (
            pause is not None
            and bool(newest)
            and newest[0].details.get("reason") == PAUSED
            and newest[0].queued_at >= pause.paused_at
        )
        if is_due:
            self._engine.scheduler.catch_up_pause(job_id, newest[0])
        return is_due
