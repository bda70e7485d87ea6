"""The state of every job in memory: definition, pause, running and queued runs, last result, next time.

A change of a `JobState` requires `JobTable.lock`, which is held only for the change, and a call of `touch`: by `version` and
the mark of the state, the API recognizes which of its rendered responses are out of date.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from ..core.errors import NotFoundError, StoreError
from ..core.models import Job, Pause, Run
from ..store.protocol import Store

log = logging.getLogger(__name__)

MOST_ENDED = 1000  # runs that ended during an outage, kept in memory


@dataclass(slots=True, eq=False)
class JobState:
    """The state of one job."""

    job: Job
    pause: Pause | None = None
    running: dict[str, Run] = field(default_factory=dict)
    queued: deque[Run] | None = None  # created for the first queued run: most jobs never need it
    last_result: Run | None = None
    last_success: Run | None = None
    next_run_at: datetime | None = None
    rendered: bytes | None = None  # its rendered response in the API, until the next change

    @property
    def waiting(self) -> int:
        """Return the number of queued runs."""
        return len(self.queued) if self.queued else 0


class JobTable:
    """The states of all jobs, in the order of the configuration, and whether the engine is stopping."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.states: dict[str, JobState] = {}
        self.retired: dict[str, JobState] = {}  # removed from the configuration, with runs that are still running
        self.ended: dict[str, Run] = {}  # the newest that ended during an outage, and may not be in the ledger yet
        self.version = 0
        self.is_stopping = False
        self._has_progressed = threading.Condition(self.lock)

    def get(self, job_id: str) -> JobState:
        """Return the state of a configured job. Raise NotFoundError when no such job exists."""
        state = self.states.get(job_id)
        if state is None:
            raise NotFoundError(f"there is no job {job_id!r}")
        return state

    def touch(self, state: JobState) -> None:
        """Mark a state as changed."""
        state.rendered = None
        self.version += 1

    def running(self) -> list[Run]:
        """Return the running runs, oldest first."""
        with self.lock:
            return sorted((run for state in self._all() for run in state.running.values()), key=lambda run: run.position)

    def not_started(self) -> list[Run]:
        """Return the accepted runs that have not started: they are queued, or wait for a thread that starts them."""
        with self.lock:
            found = [run for state in self._all() for run in (*(state.queued or ()), *state.running.values())]
        return [run for run in found if run.started_at is None]

    def holding(self, run_id: str) -> JobState | None:
        """Return the state that has a run among its running or queued ones, or None."""
        with self.lock:
            return next((state for state in self._all() if _has(state, run_id)), None)

    def find(self, run_id: str) -> Run | None:
        """Return a run that is running or queued, or that ended during an outage; None when memory does not have it."""
        with self.lock:
            state = self.holding(run_id)
            if state is None:
                return self.ended.get(run_id)
            return state.running.get(run_id) or next(run for run in state.queued or () if run.run_id == run_id)

    def known(self, job_id: str | None) -> list[Run]:
        """Return all runs that `find` can return, of one job or of all (None)."""
        with self.lock:
            states = [state for state in self._all() if job_id in (None, state.job.job_id)]
            ended = [run for run in self.ended.values() if job_id in (None, run.job_id)]
            return ended + [run for state in states for run in (*state.running.values(), *(state.queued or ()))]

    def remember_ended(self, runs: Iterable[Run], is_away: bool) -> None:
        """Keep the ends that the ledger receives after an outage. Otherwise it has all of them. The lock is held."""
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
        """Replace the set of jobs. Removed jobs are kept as retired until their last run has ended.

        Return the queued runs of removed jobs, which will not start.
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

    def update_running(self, run: Run) -> None:
        """Replace a running run by a newer version of it. A run that is no longer running is ignored."""
        with self.lock:
            state = self.state_of(run)
            if state is not None and run.run_id in state.running:
                state.running[run.run_id] = run
                self.touch(state)
            if self.is_stopping:
                self.notify_progress()

    def stop(self) -> list[Run]:
        """Start no further runs. Return the queued ones."""
        with self.lock:
            self.is_stopping = True
            return [run for state in self.states.values() for run in state.queued or ()]

    def notify_progress(self) -> None:
        """Let `wait_until_idle` check again, because a run has started or ended. The lock is held."""
        self._has_progressed.notify_all()

    def wait_until_idle(self, seconds: float, counts: Callable[[Run], bool]) -> bool:
        """Return True as soon as no run for which `counts` is true is running, False when one still is after `seconds`."""
        with self._has_progressed:
            return self._has_progressed.wait_for(lambda: not any(map(counts, self.running())), seconds)

    def _all(self) -> Iterator[JobState]:
        yield from self.states.values()
        yield from self.retired.values()


def _has(state: JobState, run_id: str) -> bool:
    return run_id in state.running or any(run.run_id == run_id for run in state.queued or ())


def run_of(table: JobTable, store: Store, run_id: str) -> Run | None:
    """Return a run from the ledger or from memory, or None when neither has it.

    The ledger is read first, because memory receives an end slightly later. During an outage, memory is read first: it has
    the running and queued runs, and those that have ended since. Raise StoreError when the ledger cannot be read and memory
    does not have the run.
    """
    known = table.find(run_id) if store.trouble is not None else None
    if known is not None:
        return known
    try:
        return store.run(run_id) or table.find(run_id)
    except StoreError:
        known = table.find(run_id)
        if known is None:
            raise
        return known


def last_success_at(table: JobTable, store: Store, run: Run, now: datetime) -> datetime | None:
    """Return the instant up to which the job of a run has done its work, or None when no success is known.

    This is the occurrence of its newest success, however late that was started: an incremental job continues there. For a
    manual run, it is the time of its start. A success in the future, recorded by a clock that was ahead, is ignored: then
    the newest of the others counts. The result is None while the ledger cannot be read.
    """
    state = table.state_of(run)
    last = state.last_success if state is not None else None
    if last is not None and last.done_through > now:
        try:
            last = store.last_successes([run.job_id], now).get(run.job_id) if store.trouble is None else None
        except StoreError as error:
            log.warning("job %s: its last success cannot be read now: %s", run.job_id, error)
            last = None
    return None if last is None else last.done_through
