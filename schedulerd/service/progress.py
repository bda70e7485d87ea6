"""How far running runs are, and when they are expected to end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ..core.clock import Clock
from ..core.errors import StoreError
from ..core.models import Run, Status
from ..core.stats import percentile
from ..process.output import OutputFolder
from ..process.result_file import read_result, result_path
from ..store.protocol import Store
from .run_lookup import RunLookup
from .serializers import run_view

log = logging.getLogger(__name__)

DURATIONS = 20  # past runs of a job whose median is the expected duration


class Progress:
    """Adds elapsed time, progress and estimated remaining time to the views of runs."""

    def __init__(self, lookup: RunLookup, store: Store, clock: Clock, output: OutputFolder) -> None:
        self._lookup = lookup
        self._store = store
        self._clock = clock
        self._output = output

    def views(self, runs: Sequence[Run]) -> list[dict[str, Any]]:
        """Return runs as the API shows them, with their progress."""
        past = self._durations(sorted({run.job_id for run in runs if run.status is Status.RUNNING}))
        return [{**run_view(run), **self._progress_of(run, percentile(past.get(run.job_id, ()), 50))} for run in runs]

    def _durations(self, job_ids: list[str]) -> dict[str, list[float]]:
        """Return the durations of past runs by job; nothing while the store is unavailable."""
        if self._store.trouble is not None:
            return {}
        try:
            return self._store.durations(job_ids, DURATIONS)
        except StoreError as error:
            log.debug("progress: cannot read the durations of past runs: %s", error)
            return {}

    def _progress_of(self, run: Run, expected_seconds: float | None) -> dict[str, Any]:
        if run.status is not Status.RUNNING:
            return {"running_seconds": None, "progress": None, "eta_seconds": None}
        elapsed = max(0.0, (self._clock.now() - (run.started_at or run.queued_at)).total_seconds())
        job = self._lookup.job_of(run)
        path = self._output.path_of(run.run_id)
        progress = read_result(result_path(path, job)).progress if job is not None else None
        left = seconds_left(elapsed, progress, expected_seconds)
        return {
            "running_seconds": round(elapsed, 3),
            "progress": progress,
            "eta_seconds": None if left is None else round(left, 3),
        }


def seconds_left(elapsed: float, progress: float | None, expected: float | None) -> float | None:
    """Return the estimated remaining seconds of a run.

    The estimate uses the progress that the run reports (0 to 1), or else the expected duration. None without both.
    """
    if progress:
        return elapsed / progress * (1 - progress)
    return None if expected is None else max(0.0, expected - elapsed)
