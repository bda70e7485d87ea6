"""Run queue: starts or queues runs by per-job limits, pools and host load.

All functions except `measure` are called with the lock of the job table held. The rules are in `core.concurrency`. This
module has the state to which they apply: the running and queued runs, and the slots in use.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from ..core.clock import Clock
from ..core.concurrency import (
    Admission,
    FullPool,
    HostLoad,
    Waiting,
    admit,
    is_gated,
    max_running,
    unmet_condition,
)
from ..core.models import CatchUp, Job, Origin, Overlap, Result, Run, Status
from ..core.retries import deadline_of, rebased, retry_at_of
from ..core.units import counted, format_duration
from .due import not_started
from .pool_slots import PoolSlots
from .state import JobState, JobTable

log = logging.getLogger(__name__)

LOAD_CHECK_INTERVAL = timedelta(seconds=15)  # while a run waits for the load of the host


class RunQueue:
    """Counts running and queued runs, and chooses the queued ones that start next."""

    def __init__(
        self, table: JobTable, clock: Clock, wake_at: Callable[[datetime], None], measure: Callable[[], HostLoad]
    ) -> None:
        """`wake_at(at)` makes the planner check `is_time` again at `at`; `measure` returns the load of the host."""
        self._table = table
        self._clock = clock
        self._wake_at = wake_at
        self._measure = measure
        self._slots = PoolSlots()
        self._unrecorded: set[str] = set()  # queued runs whose rows are not durable yet: they cannot be claimed
        self._queueing: dict[str, None] = {}  # the jobs that have queued runs, and possibly others
        self._has_freed = False
        self._load: HostLoad | None = None
        self._next_check: datetime | None = None
        self._checked_at = clock.now()

    def limit(self, limits: Mapping[str, int]) -> None:
        """Set the number of slots of each pool. Runs keep their slots, even when the new number is smaller."""
        self._slots.limit(limits)
        self._has_freed = True

    def measure(self) -> None:
        """Measure the load of the host. The lock is not held, because this reads files of the kernel."""
        try:
            self._load = self._measure()
        except (OSError, ValueError) as error:
            log.error("the load of the host cannot be read; jobs with `only_if` are not started: %s", error)
            self._load = None

    # Entering and leaving

    def admitted(self, state: JobState, run: Run) -> Run:
        """Return the row of a new run by the decision of the rules: running, queued or skipped. Count the run."""
        waiting = sum(each.origin is not Origin.RETRY for each in state.queued or ())
        decision = admit(_overlap_of(state.job, run), len(state.running), waiting, max_running(state.job))
        self._table.touch(state)
        if decision is Admission.SKIP:
            return _skipped(state, run, waiting)
        why = self._must_wait(state, run) if decision is Admission.START else None
        if decision is Admission.START and why is None:
            self.enter(state, run)
            return run
        self._unrecorded.add(run.run_id)
        return self.wait(
            state, replace(run, status=Status.QUEUED, details={**run.details, **({"reason": why} if why else {})})
        )

    def confirm(self, run_id: str) -> None:
        """Accept that the row of an admitted run is durable."""
        self._unrecorded.discard(run_id)

    def enter(self, state: JobState, run: Run) -> None:
        """Count a run among the running ones, with its slots."""
        state.running[run.run_id] = run
        self._slots.take(run.run_id, state.job.uses)
        self._table.touch(state)

    def leave(self, state: JobState, run_id: str) -> None:
        """Stop counting a run as running or queued, and release its slots."""
        state.running.pop(run_id, None)
        self._unrecorded.discard(run_id)
        self.unqueue(state, {run_id})
        if self._slots.release(run_id):
            self._has_freed = True
        self._table.touch(state)

    def wait(self, state: JobState, run: Run) -> Run:
        """Queue a run, and return it."""
        state.queued = state.queued or deque()
        state.queued.append(run)
        self._queueing[state.job.job_id] = None
        retry_at = retry_at_of(run)
        if retry_at is not None:
            self._check_at(retry_at)
        self._table.touch(state)
        return run

    def wait_again(self, state: JobState, run: Run, at: datetime) -> None:
        """Return a promoted run to the queue, and check it again at `at`."""
        details = dict(run.details)
        if "waited" in details:
            details["reason"] = details.pop("waited")
        self.leave(state, run.run_id)
        self.wait(state, replace(run, status=Status.QUEUED, details=details))
        self._check_at(at)

    def unqueue(self, state: JobState, run_ids: Collection[str]) -> list[Run]:
        """Remove runs from the queue of their job, and return them."""
        found = [run for run in state.queued or () if run.run_id in run_ids]
        if found:
            state.queued = deque(run for run in state.queued or () if run.run_id not in run_ids)
            self._table.touch(state)
        return found

    def rebase(self, now: datetime) -> None:
        """Restart the waits of runs that were queued by a clock that was ahead. Their length does not change."""
        for state in self._waiting_states():
            state.queued = deque(rebased(run, now) for run in state.queued or ())
            self._table.touch(state)
            for at in filter(None, map(retry_at_of, state.queued)):
                self._check_at(at)

    def recount(self) -> None:
        """Count the slots of all running runs again."""
        self._slots.clear()
        for run in self._table.running():
            state = self._table.state_of(run)
            if state is not None:
                self.enter(state, run)

    # The next runs

    def next_of(self, state: JobState) -> list[Run]:
        """Return the queued runs that start now because a job or a slot has changed. They count as running."""
        if not self._has_freed and not state.queued and not state.job.uses:
            return []  # the usual case at the end of a run
        sharers = self._waiting_states() if self._has_freed or state.job.uses else []
        self._has_freed = False
        return self._chosen({each.job.job_id: each for each in (state, *(one for one in sharers if one.job.uses))})

    def next_of_all(self) -> list[Run]:
        """Return all queued runs that start now. They count as running."""
        self._has_freed, self._next_check = False, None
        return self._chosen({state.job.job_id: state for state in self._waiting_states()})

    def is_time(self, now: datetime) -> bool:
        """Return whether a waiting run must be checked now, or the clock was set back."""
        was_set_back, self._checked_at = now < self._checked_at, now
        return (self._next_check is not None and self._next_check <= now) or (was_set_back and bool(self._queueing))

    def expire(self, now: datetime) -> list[tuple[Run, Result]]:
        """Remove the queued runs that must not start any more. Return them with their results."""
        found = []
        for state in self._waiting_states():
            for run in list(state.queued or ()):
                result = self._expired(state.job, run, now)
                if result is not None:
                    found += [(each, result) for each in self.unqueue(state, {run.run_id})]
        return found

    # The wait reasons of queued runs

    def shut(self, job: Job, run: Run) -> str | None:
        """Return why the load of the host delays a run, as a message, or None when it does not."""
        if not is_gated(job, run):
            return None
        return (
            unmet_condition(job.only_if, self._load) if self._load is not None else "the load of the host could not be read"
        )

    def lacks(self, state: JobState, run: Run) -> list[FullPool]:
        """Return the pools with too few free slots for a queued run, without regard to other delays of its start."""
        if not state.job.uses:
            return []
        states, ready = self._sharers(state)
        others = [one for one in ready if one.run_id != run.run_id and one.job_id != run.job_id]
        room = self._room(states.values()) | {run.job_id: None}
        return self._slots.lacking(self._as_waiting([*others, run], states), room, run.run_id, state.job)

    def _expired(self, job: Job, run: Run, now: datetime) -> Result | None:
        deadline_at = deadline_of(job, run, None)
        if deadline_at is not None and deadline_at <= now:
            return Result(Status.TIMED_OUT, message="its deadline passed while it waited", details={"reason": "deadline"})
        latest = since(run) + timedelta(seconds=job.only_if_within_seconds)
        why = self.shut(job, run)
        if why is None or now < latest:
            return None
        text = f"{why}, for {format_duration(job.only_if_within_seconds)}"
        return Result(Status.SKIPPED, message=text, details={"reason": "condition"})

    def _chosen(self, states: Mapping[str, JobState]) -> list[Run]:
        """Return the queued runs of some jobs that start now. They count as running."""
        now = self._clock.now()
        waiting = {
            run.run_id: run for state in states.values() for run in state.queued or () if self._is_ready(state, run, now)
        }
        chosen = [each for each in self._choose(waiting.values(), states) if each.run_id not in self._unrecorded]
        return [self._promoted(states[each.job_id], waiting[each.run_id]) for each in chosen]

    def _choose(self, runs: Iterable[Run], states: Mapping[str, JobState]) -> list[Waiting]:
        return self._slots.choose(self._as_waiting(runs, states), self._room(states.values()))

    def _promoted(self, state: JobState, run: Run) -> Run:
        self.unqueue(state, {run.run_id})
        details = dict(run.details)
        if "reason" in details:
            details["waited"] = details.pop("reason")
        run = replace(run, status=Status.RUNNING, details=details)
        self.enter(state, run)
        return run

    def _must_wait(self, state: JobState, run: Run) -> str | None:
        """Return the wait reason of a run that the limits of its job allow, or None."""
        job = state.job
        if is_gated(job, run):  # measured without the lock, when its row is durable
            return "waits for the load of the host"
        if not job.uses:
            return None
        states, ready = self._sharers(state)
        if any(each.run_id == run.run_id for each in self._choose([*ready, run], states)):
            return None
        return self._slots.why_waiting(job.uses)

    def _sharers(self, state: JobState) -> tuple[dict[str, JobState], list[Run]]:
        """Return a job and all others with queued runs that need slots, by id, and which of these runs are ready."""
        now = self._clock.now()
        states = {each.job.job_id: each for each in self._waiting_states() if each.job.uses} | {state.job.job_id: state}
        return states, [one for each in states.values() for one in each.queued or () if self._is_ready(each, one, now)]

    def _is_ready(self, state: JobState, run: Run, now: datetime) -> bool:
        """Return whether a queued run waits only for its job and for slots. If not, plan when to check it again."""
        deadline_at = deadline_of(state.job, run, None)
        if deadline_at is not None:
            self._check_at(deadline_at)
            if deadline_at <= now:
                return False
        if state.pause is not None and run.origin is not Origin.MANUAL:
            return False  # until the job is resumed
        retry_at = retry_at_of(run)
        if retry_at is not None and retry_at > now:
            self._check_at(retry_at)
            return False
        if self.shut(state.job, run) is not None:
            latest = since(run) + timedelta(seconds=state.job.only_if_within_seconds)
            self._check_at(min(now + LOAD_CHECK_INTERVAL, latest) if latest > now else now + LOAD_CHECK_INTERVAL)
            return False
        return True

    def _as_waiting(self, runs: Iterable[Run], states: Mapping[str, JobState]) -> list[Waiting]:
        ordered = sorted(runs, key=since)  # runs of the same instant in the order of their arrival
        return [self._slots.as_waiting(run.run_id, states[run.job_id].job) for run in ordered]

    @staticmethod
    def _room(states: Iterable[JobState]) -> dict[str, int | None]:
        most = {state.job.job_id: (max_running(state.job), len(state.running)) for state in states}
        return {job_id: None if limit is None else limit - running for job_id, (limit, running) in most.items()}

    def _waiting_states(self) -> list[JobState]:
        """Return the jobs that have queued runs."""
        found = {job_id: self._table.states.get(job_id) for job_id in self._queueing}
        states = [state for state in found.values() if state is not None and state.queued]
        self._queueing = {state.job.job_id: None for state in states}
        return states

    def _check_at(self, at: datetime) -> None:
        if self._next_check is None or at < self._next_check:
            self._next_check = at
            self._wake_at(at)


def since(run: Run) -> datetime:
    """Return the instant since which a run waits: for a retry, its retry time."""
    return retry_at_of(run) or run.queued_at


def _overlap_of(job: Job, run: Run) -> Overlap:
    """Return the overlap policy of a run: with `catch_up: all`, every run must start, so they are queued."""
    if run.origin is Origin.CATCH_UP and job.catch_up is CatchUp.ALL and job.overlap is Overlap.SKIP:
        return Overlap.QUEUE
    return job.overlap


def _skipped(state: JobState, run: Run, waiting: int) -> Run:
    """Return the row of a run that is skipped because it overlaps with others of its job."""
    blocking = next(iter(state.running), None)  # the oldest
    why = f"run {blocking} of the job is still running"
    if blocking is None or state.job.overlap is Overlap.QUEUE:
        why = f"{counted(waiting, 'run')} of the job already waiting"
    details = {**run.details, "reason": "overlap", "blocking_run": blocking}
    return not_started(run, Status.SKIPPED, why, details)
