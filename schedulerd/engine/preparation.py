"""Runs whose process is being prepared: secrets, variables and statements are read for it, from files that may not answer.

A read from a hung mount never returns, and nothing can interrupt it. So a run whose preparation takes too long is given up,
while the thread in which it hangs is left to itself, at most one for a job.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from ..core.clock import Clock
from ..core.errors import StartError
from ..core.models import Job, Run

PREPARE_SECONDS = 10.0
GIVEN_UP = (
    f"given up: it could not be prepared within {PREPARE_SECONDS:g} s, since one of the files that its job names (a secret, "
    "an env_file, its program) does not answer: does its file system (a mount?) hang?"
)
STOPPING = "not started: the daemon is stopping"


class GivenUpError(Exception):
    """Nobody waits for what was prepared any more."""


@dataclass(frozen=True, slots=True)
class _Preparation:
    job: Job
    run: Run
    since: float  # monotonic


class Preparations:
    """What is being prepared now, and of which jobs something hangs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._going_on: dict[str, _Preparation] = {}  # by run_id
        self._hung: dict[str, str] = {}  # by job_id, the run that was given up and still hangs

    def begin(self, job: Job, run: Run) -> None:
        """Note that a run is being prepared. Raise StartError when what was given up of its job hangs still."""
        with self._lock:
            if job.job_id in self._hung:
                raise StartError(f"not tried: the preparation of run {self._hung[job.job_id]} of this job hangs still")
            self._going_on[run.run_id] = _Preparation(job, run, self._clock.monotonic())

    def end(self, job: Job, run: Run) -> bool:
        """Note that it is done, well or not. False when it was given up meanwhile."""
        with self._lock:
            if self._hung.get(job.job_id) == run.run_id:
                del self._hung[job.job_id]
            return self._going_on.pop(run.run_id, None) is not None

    def give_up(self, seconds: float = PREPARE_SECONDS) -> list[tuple[Job, Run]]:
        """Give up what has been going on for `seconds`, and return it."""
        with self._lock:
            now = self._clock.monotonic()
            late = [each for each in self._going_on.values() if now - each.since >= seconds]
            for each in late:
                del self._going_on[each.run.run_id]
                self._hung.setdefault(each.job.job_id, each.run.run_id)
        return [(each.job, each.run) for each in late]
