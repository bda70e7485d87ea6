"""The operations on runs: list, show, wait for, cancel."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..core.errors import NotFoundError
from ..core.models import UNFINISHED, Actor, Role, Run
from ..core.retries import is_followed
from ..engine.engine import Engine
from ..engine.manual_runs import ManualRuns
from ..process.output import OutputFolder
from .durability import when_durable
from .outputs import Outputs
from .progress import Progress
from .roles import needs
from .run_lookup import RunLookup
from .serializers import run_view

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CancelResult:
    """The effect of a request to cancel a run.

    `is_accepted` is false for a run that had ended before. `ordered` is the run after the order, `ended` the run at its end.
    """

    is_accepted: bool
    ordered: Future[Run]
    ended: Future[Run]


class Runs:
    """The runs of all jobs."""

    def __init__(
        self,
        lookup: RunLookup,
        progress: Progress,
        outputs: Outputs,
        folder: OutputFolder,
        engine: Engine,
        manual_runs: ManualRuns,
    ) -> None:
        self._lookup = lookup
        self._progress = progress
        self._outputs = outputs
        self._folder = folder
        self._engine = engine
        self._manual_runs = manual_runs

    @needs(Role.VIEWER)
    def list_runs(
        self, limit: int, before: str | None, statuses: list[str] | None, job_id: str | None
    ) -> list[dict[str, Any]]:
        """Return a page of the runs of all jobs, or of one, newest first."""
        return list(map(run_view, self._lookup.page(limit, before, statuses, job_id)))

    @needs(Role.VIEWER)
    def running(self) -> list[dict[str, Any]]:
        """Return the runs that are running, oldest first, with their progress."""
        return self._progress.views(self._engine.table.running())

    @needs(Role.VIEWER)
    def show(self, run_id: str) -> dict[str, Any]:
        """Return a run with its progress and the size of its output. Raise NotFoundError."""
        run = self._lookup.get(run_id)
        kept = self._folder.stats(run.run_id)
        return {
            **self._progress.views([run])[0],
            "output_bytes": kept.size,
            "output_dropped_bytes": kept.dropped,
            "output_removed": self._outputs.output_of(run).is_removed,
        }

    @needs(Role.VIEWER)
    def current(self, run: Run) -> Run:
        """Return a row of the ledger in its current state."""
        return self._lookup.current(run)

    @needs(Role.VIEWER)
    def watch(self, run_id: str) -> Future[Run]:
        """Return a future that is done when a run has ended, or the daemon stops. Raise NotFoundError."""
        return self._manual_runs.watch(self._lookup.get(run_id))

    @needs(Role.VIEWER)
    def next_attempt(self, run: Run) -> Run | None:
        """Return the retry that follows a run, None when there is none or it was deleted."""
        try:
            return self._lookup.get(run.details["retry"]) if is_followed(run.details) else None
        except NotFoundError:
            return None

    @needs(Role.OPERATOR)
    def cancel(self, run_id: str, actor: Actor, reason: str | None) -> CancelResult:
        """Cancel a run. A retry that follows it is a run of its own. Raise NotFoundError."""
        run = self._lookup.get(run_id)
        is_accepted = run.status in UNFINISHED
        ended = self._manual_runs.watch(run)
        ordered = (
            self._engine.cancellation.cancel(run_id, actor.name + (f": {reason}" if reason else ""))
            if is_accepted
            else ended
        )
        message = f"run %s of job %s: cancelled by %s{'' if is_accepted else ', after its end'}"
        when_durable(ordered, lambda _: log.info(message, run_id, run.job_id, actor.name))
        return CancelResult(is_accepted, ordered, ended)
