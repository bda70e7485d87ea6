"""What is known now of every job, in memory: definition, pause, what runs and waits, last result, next time.

Whoever changes a `JobState` holds `JobTable.lock`, only for that, and calls `touch`: `version` and the state's own mark tell
the API which of the answers it has made are out of date.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from ..core.errors import NotFoundError
from ..core.models import Job, Pause, Run

MOST_ENDED = 1000  # runs that ended while the ledger was away, and are kept in memory


@dataclass(slots=True, eq=False)
class JobState:
    """One job, as it stands."""

    job: Job
    pause: Pause | None = None
    running: dict[str, Run] = field(default_factory=dict)
    queued: deque[Run] | None = None  # made when the first run waits: most jobs never need it
    last_result: Run | None = None
    last_success: Run | None = None
    next_run_at: datetime | None = None
    rendered: bytes | None = None  # the API's answer about it, until the next change

    @property
    def waiting(self) -> int:
        """Return how many runs wait for their turn."""
        return len(self.queued) if self.queued else 0


class JobTable:
    """The states of all jobs, in the order of the configuration."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.states: dict[str, JobState] = {}
        self.retired: dict[str, JobState] = {}  # no longer configured, but something of them still runs
        self.ended: dict[str, Run] = {}  # the newest that ended while the ledger was away, and may not be in it yet
        self.version = 0

    def get(self, job_id: str) -> JobState:
        """Return a configured job's state. Raise NotFoundError when there is no such job."""
        state = self.states.get(job_id)
        if state is None:
            raise NotFoundError(f"there is no job {job_id!r}")
        return state

    def touch(self, state: JobState) -> None:
        """Mark a state as changed."""
        state.rendered = None
        self.version += 1

    def running(self) -> list[Run]:
        """Return what runs, oldest first."""
        with self.lock:
            return sorted((run for state in self._all() for run in state.running.values()), key=lambda run: run.position)

    def not_started(self) -> list[Run]:
        """Return what was accepted and has not been started: what waits for its turn, or for a thread to start it."""
        with self.lock:
            found = [run for state in self._all() for run in (*(state.queued or ()), *state.running.values())]
        return [run for run in found if run.started_at is None]

    def holding(self, run_id: str) -> JobState | None:
        """Return the state of which a run runs or waits, None when it does neither."""
        with self.lock:
            return next((state for state in self._all() if _has(state, run_id)), None)

    def find(self, run_id: str) -> Run | None:
        """Return a run that runs, waits, or has ended while the ledger was away; None when memory has it no more."""
        with self.lock:
            state = self.holding(run_id)
            if state is None:
                return self.ended.get(run_id)
            return state.running.get(run_id) or next(run for run in state.queued or () if run.run_id == run_id)

    def known(self, job_id: str | None) -> list[Run]:
        """Return all runs that `find` finds, of one job when it is given."""
        with self.lock:
            states = [state for state in self._all() if job_id in (None, state.job.job_id)]
            ended = [run for run in self.ended.values() if job_id in (None, run.job_id)]
            return ended + [run for state in states for run in (*state.running.values(), *(state.queued or ()))]

    def remember_ended(self, runs: Iterable[Run], is_away: bool) -> None:
        """Keep ends that the ledger will have later; once it has taken one itself, it has those, too. The lock is held."""
        if not is_away:
            self.ended.clear()
            return
        self.ended |= {run.run_id: run for run in runs}
        for run_id in list(self.ended)[: max(0, len(self.ended) - MOST_ENDED)]:
            del self.ended[run_id]

    def state_of(self, run: Run) -> JobState | None:
        """Return the state that counts a run, configured or retired."""
        retired = self.retired.get(run.job_id)
        if retired is not None and run.run_id in retired.running:
            return retired
        return self.states.get(run.job_id)

    def replace(self, states: dict[str, JobState]) -> list[Run]:
        """Put a new set of jobs in place; jobs that are gone stay in sight until their last run has ended.

        Returns the runs that waited for their turn, which they will not have.
        """
        waited: list[Run] = []
        for job_id, state in self.states.items():
            if job_id not in states:
                waited += state.queued or ()
                state.queued = None
                if state.running:
                    self.retired[job_id] = state
        self.states = states
        self.version += 1
        return waited

    def _all(self) -> Iterator[JobState]:
        yield from self.states.values()
        yield from self.retired.values()


def _has(state: JobState, run_id: str) -> bool:
    return run_id in state.running or any(run.run_id == run_id for run in state.queued or ())
