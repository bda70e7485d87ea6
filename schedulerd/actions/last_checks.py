"""The last health check of each job, in memory. The next one is compared with it, and `GET /health` returns it.

Neither of them waits for the store, whose server may be the one that is down. Only the checks of an earlier daemon are read
from the store, at startup.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..core.models import Position, Run, Status
from ..store.protocol import Store

MOST_SEARCHED = 100  # runs of a job, newest first, among which its last check is searched
MADE_BY = (Status.SUCCESS, Status.FAILED)  # statuses of runs that can be checks: a cancelled run has no result


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a health check: `details` contain `status`, `services` and `system`."""

    job_id: str
    position: Position  # of its run, in the order of recording
    checked_at: datetime
    details: Mapping[str, Any]
    clocked: float | None = None  # time of the check on the monotonic clock; None: by an earlier daemon

    def age_seconds(self, now: datetime, monotonic: float) -> float:
        """Return the age of the check."""
        return (now - self.checked_at).total_seconds() if self.clocked is None else monotonic - self.clocked


class LastChecks:
    """The newest check of each job, including removed jobs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_job: dict[str, Check] = {}

    def of(self, job_id: str) -> Check | None:
        """Return the last check of a job, None when there was none."""
        return self._by_job.get(job_id)

    def newest(self, job_ids: Collection[str]) -> Check | None:
        """Return the newest check of some jobs, None when there was none."""
        found = [check for job_id in job_ids if (check := self._by_job.get(job_id)) is not None]
        return max(found, key=lambda check: check.position, default=None)

    def remember(self, check: Check) -> None:
        """Store a check, unless there is one of a newer run of its job."""
        with self._lock:
            last = self._by_job.get(check.job_id)
            if last is None or last.position < check.position:
                self._by_job[check.job_id] = check

    def recall(self, store: Store, job_ids: Iterable[str]) -> None:
        """Read the last checks of jobs without one from the store. Raise StoreError."""
        for job_id in job_ids:
            if job_id not in self._by_job:
                run = next(filter(is_check, store.history(job_id, MOST_SEARCHED, statuses=MADE_BY)), None)
                if run is not None:
                    self.remember(Check(job_id, run.position, run.finished_at or run.queued_at, run.details))


def is_check(run: Run) -> bool:
    """Return whether a run is a health check with a result."""
    return isinstance(run.details.get("services"), dict)
