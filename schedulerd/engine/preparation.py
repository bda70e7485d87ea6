"""Preparation: before a process starts, its secrets, variables and statements are read from files. A read may hang.

A read from a hung mount never returns, and cannot be interrupted. Therefore, a run whose preparation takes too long is given
up, and the thread in which it hangs is abandoned: at most one for each job.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from ..core.clock import Clock
from ..core.errors import StartError

PREPARE_SECONDS = 10.0
GIVEN_UP = (
    f"given up: it could not be prepared within {PREPARE_SECONDS:g} s, because a file that its job names (a secret, "
    "an env_file, its program) does not answer; check whether its file system (a mount?) hangs"
)
STOPPING = "not started: the daemon is stopping"


class GivenUpError(Exception):
    """The preparation took too long, and its run was given up."""


class _Preparation(NamedTuple):
    job_id: str
    since: float  # monotonic


class Preparations:
    """The preparations that are in progress, and those that were given up and still hang."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._in_progress: dict[str, _Preparation] = {}  # by run_id
        self._hung: dict[str, str] = {}  # by job_id, the run that was given up and still hangs

    def begin(self, job_id: str, run_id: str) -> None:
        """Record that a run is being prepared. Raise StartError when an earlier preparation of its job still hangs."""
        with self._lock:
            if job_id in self._hung:
                raise StartError(f"not tried: the preparation of run {self._hung[job_id]} of this job still hangs")
            self._in_progress[run_id] = _Preparation(job_id, self._clock.monotonic())

    def end(self, job_id: str, run_id: str) -> bool:
        """Record that a preparation has ended, with or without an error. Return False when it was given up before."""
        with self._lock:
            if self._hung.get(job_id) == run_id:
                del self._hung[job_id]
            return self._in_progress.pop(run_id, None) is not None

    def give_up(self, seconds: float = PREPARE_SECONDS) -> list[str]:
        """Give up the preparations that have taken `seconds`. Return the ids of their runs."""
        with self._lock:
            now = self._clock.monotonic()
            late = [(run_id, each) for run_id, each in self._in_progress.items() if now - each.since >= seconds]
            for run_id, each in late:
                del self._in_progress[run_id]
                self._hung.setdefault(each.job_id, run_id)
        return [run_id for run_id, _ in late]
