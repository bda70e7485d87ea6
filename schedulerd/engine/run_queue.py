"""Who may run now and who waits: the places of each job, the seats of pools, times of retries, and the host's load.

Everything here but `measure` is called with the table's lock held. What the rules say is in `admission`; here is what they
are asked about: what runs, what waits, and which seats are taken.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
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
    format_pool_wait,
    is_gated,
    max_running,
    select_runs,
    unmet_condition,
)
from ..core.models import CatchUp, Job, Origin, Overlap, Result, Run, Status
from ..core.retries import deadline_of, rebased, retry_at_of
from ..core.units import counted, format_duration
from ..host import load
from .due import not_started
from .state import JobState, JobTable

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(seconds=15)  # how often the load is looked at for what waits for it


class RunQueue:
    """Puts runs among those that run or those that wait, and chooses of these who is next."""

    def __init__(self, table: JobTable, clock: Clock) -> None:
        self.measured_by: Callable[[], HostLoad] = load.measure
        self._table = table
        self._clock = clock
        self._wake_at: Callable[[datetime], None] = lambda _at: None
        self._limits: Mapping[str, int] = {}
        self._taken: Counter[str] = Counter()
        self._seats: dict[str, Mapping[str, int]] = {}  # by run, as it took them: its job may be changed meanwhile
        self._unentered: set[str] = set()  # runs that wait, and whose rows are not durable yet: nobody may claim them
        self._had: dict[str, frozenset[str]] = {}  # by run that waits for seats, as it was last looked at
        self._queueing: dict[str, None] = {}  # the jobs of which something waits, and perhaps some more
        self._has_freed = False
        self._load: HostLoad | None = None
        self._next_look: datetime | None = None
        self._looked_at = clock.now()

    def wake_with(self, wake_at: Callable[[datetime], None]) -> None:
        """Name who calls `is_time` again at a given moment."""
        self._wake_at = wake_at

    def limit(self, limits: Mapping[str, int]) -> None:
        """Say how many seats each pool has. Who has seats keeps them, even when there are fewer now."""
        self._limits, self._has_freed = dict(limits), True

    def measure(self) -> None:
        """Look at the host's load. The lock is not held: the kernel is asked."""
        try:
            self._load = self.measured_by()
        except (OSError, ValueError) as error:
            log.error("the host's load cannot be read, so nothing that depends on it is started: %s", error)
            self._load = None

    # In and out

    def admitted(self, state: JobState, run: Run) -> Run:
        """Return the row of a run that wants to start, as the rules decide, and count it."""
        waiting = sum(each.origin is not Origin.RETRY for each in state.queued or ())
        decision = admit(_overlap_of(state.job, run), len(state.running), waiting, max_running(state.job))
        self._table.touch(state)
        if decision is Admission.SKIP:
            return _skipped(state, run, waiting)
        why = self._must_wait(state, run) if decision is Admission.START else None
        if decision is Admission.START and why is None:
            self.enter(state, run)
            return run
        self._unentered.add(run.run_id)
        return self.wait(
            state, replace(run, status=Status.QUEUED, details={**run.details, **({"reason": why} if why else {})})
        )

    def entered(self, run_id: str) -> None:
        """Take note that the row of an admitted run is durable."""
        self._unentered.discard(run_id)

    def enter(self, state: JobState, run: Run) -> None:
        """Count a run among those that run, with its seats."""
        state.running[run.run_id] = run
        if state.job.uses:
            self._seats[run.run_id] = state.job.uses
            self._taken.update(state.job.uses)
        self._table.touch(state)

    def leave(self, state: JobState, run_id: str) -> None:
        """Count a run among those that run, or wait, no more."""
        state.running.pop(run_id, None)
        self._unentered.discard(run_id)
        self.unqueue(state, {run_id})
        seats = self._seats.pop(run_id, None)
        if seats:
            self._taken.subtract(seats)
            self._has_freed = True
        self._table.touch(state)

    def wait(self, state: JobState, run: Run) -> Run:
        """Let a run wait for its turn."""
        state.queued = state.queued or deque()
        state.queued.append(run)
        self._queueing[state.job.job_id] = None
        retry_at = retry_at_of(run)
        if retry_at is not None:
            self._look_at(retry_at)
        self._table.touch(state)
        return run

    def wait_again(self, state: JobState, run: Run, at: datetime) -> None:
        """Let a run that was promoted wait as before, and be looked at again at `at`."""
        details = dict(run.details)
        if "waited" in details:
            details["reason"] = details.pop("waited")
        self.leave(state, run.run_id)
        self.wait(state, replace(run, status=Status.QUEUED, details=details))
        self._look_at(at)

    def unqueue(self, state: JobState, run_ids: Collection[str]) -> list[Run]:
        """Take waiting runs out of the queue of their job, and return them."""
        found = [run for run in state.queued or () if run.run_id in run_ids]
        if found:
            state.queued = deque(run for run in state.queued or () if run.run_id not in run_ids)
            self._table.touch(state)
        return found

    def rebase(self, now: datetime) -> None:
        """Let what was queued by a clock that was ahead wait from now on, for as long as it was to."""
        for state in self._waiting_states():
            state.queued = deque(rebased(run, now) for run in state.queued or ())
            self._table.touch(state)
            for at in filter(None, map(retry_at_of, state.queued)):
                self._look_at(at)

    def recount(self) -> None:
        """Take the seats of everything that runs, however it came to run."""
        self._seats, self._taken = {}, Counter()
        for run in self._table.running():
            state = self._table.state_of(run)
            if state is not None:
                self.enter(state, run)

    # Who is next

    def next_of(self, state: JobState) -> list[Run]:
        """Return the waiting runs that may start now that a job, or a seat, has changed; they run from now on."""
        if not self._has_freed and not state.queued and not state.job.uses:
            return []  # as with most ends of most jobs
        sharers = self._waiting_states() if self._has_freed or state.job.uses else []
        self._has_freed = False
        return self._chosen({each.job.job_id: each for each in (state, *(one for one in sharers if one.job.uses))})

    def next_of_all(self) -> list[Run]:
        """Return every waiting run that may start now; they run from now on."""
        self._has_freed, self._next_look = False, None
        return self._chosen({state.job.job_id: state for state in self._waiting_states()})

    def is_time(self, now: datetime) -> bool:
        """Return whether something waits for a moment that has come, or the clock was set back."""
        was_set_back, self._looked_at = now < self._looked_at, now
        return (self._next_look is not None and self._next_look <= now) or (was_set_back and bool(self._queueing))

    def expire(self, now: datetime) -> list[tuple[Run, Result]]:
        """Take out the waiting runs that must not start any more; return them with what becomes of them."""
        found = []
        for state in self._waiting_states():
            for run in list(state.queued or ()):
                result = self._expired(state.job, run, now)
                if result is not None:
                    found += [(each, result) for each in self.unqueue(state, {run.run_id})]
        return found

    # What stands in the way of a run that waits

    def shut(self, job: Job, run: Run) -> str | None:
        """Return in words why the host's load keeps a run from its start, or None when it does not."""
        if not is_gated(job, run):
            return None
        return unmet_condition(job.only_if, self._load) if self._load is not None else "the host's load could not be read"

    def lacks(self, state: JobState, run: Run) -> list[FullPool]:
        """Return the pools that are too full for a waiting run, as if nothing else kept it from its start."""
        if not state.job.uses:
            return []
        states, ready = self._sharers(state)
        others = [one for one in ready if one.run_id != run.run_id and one.job_id != run.job_id]
        room = self._room(states.values()) | {run.job_id: None}
        choice = select_runs(self._as_waiting([*others, run], states), room, self._taken, self._limits)
        found = choice.lacks.get(run.run_id, {})
        return [self._full_pool(name, state.job.uses[name], kept_for) for name, kept_for in found.items()]

    def _full_pool(self, name: str, needs: int, kept_for: str | None) -> FullPool:
        holders = tuple(run_id for run_id, seats in self._seats.items() if name in seats)
        return FullPool(name, needs, self._taken[name], self._limits.get(name, 1), holders, kept_for)

    def _expired(self, job: Job, run: Run, now: datetime) -> Result | None:
        deadline_at = deadline_of(job, run, None)
        if deadline_at is not None and deadline_at <= now:
            return Result(Status.TIMED_OUT, message="its deadline passed while it waited", details={"reason": "deadline"})
        latest = since(run) + timedelta(seconds=job.only_if_within_seconds)
        why = self.shut(job, run)
        if why is None or now < latest:
            return None  # it may wait for something else
        text = f"{why}, for {format_duration(job.only_if_within_seconds)}"
        return Result(Status.SKIPPED, message=text, details={"reason": "condition"})

    def _chosen(self, states: Mapping[str, JobState]) -> list[Run]:
        """Return who is next among what waits of some jobs, after counting it among what runs."""
        now = self._clock.now()
        waiting = {
            run.run_id: run for state in states.values() for run in state.queued or () if self._is_ready(state, run, now)
        }
        chosen = [each for each in self._choose(waiting.values(), states) if each.run_id not in self._unentered]
        return [self._promoted(states[each.job_id], waiting[each.run_id]) for each in chosen]

    def _choose(self, runs: Iterable[Run], states: Mapping[str, JobState]) -> list[Waiting]:
        choice = select_runs(self._as_waiting(runs, states), self._room(states.values()), self._taken, self._limits)
        if choice.had:  # whenever one that needs seats is looked at, all are that do and are ready
            self._had = choice.had
        return choice.started

    def _promoted(self, state: JobState, run: Run) -> Run:
        self.unqueue(state, {run.run_id})
        details = dict(run.details)
        if "reason" in details:
            details["waited"] = details.pop("reason")
        run = replace(run, status=Status.RUNNING, details=details)
        self.enter(state, run)
        return run

    def _must_wait(self, state: JobState, run: Run) -> str | None:
        """Return what a run must wait for that its job would let start, or None."""
        job = state.job
        if is_gated(job, run):  # looked at outside of the lock, when its row is there
            return "waits for the host's load"
        if not job.uses:
            return None
        states, ready = self._sharers(state)
        if any(each.run_id == run.run_id for each in self._choose([*ready, run], states)):
            return None
        return format_pool_wait(job.uses, self._taken, self._limits)

    def _sharers(self, state: JobState) -> tuple[dict[str, JobState], list[Run]]:
        """Return a job with all others of which something waits that needs seats, by id, and what of them is ready."""
        now = self._clock.now()
        states = {each.job.job_id: each for each in self._waiting_states() if each.job.uses} | {state.job.job_id: state}
        return states, [one for each in states.values() for one in each.queued or () if self._is_ready(each, one, now)]

    def _is_ready(self, state: JobState, run: Run, now: datetime) -> bool:
        """Return whether a waiting run waits for nothing but its place and its seats; if not, it may be looked at again."""
        deadline_at = deadline_of(state.job, run, None)
        if deadline_at is not None:
            self._look_at(deadline_at)
            if deadline_at <= now:
                return False
        if state.pause is not None and run.origin is not Origin.MANUAL:
            return False  # it goes on when the job is resumed
        retry_at = retry_at_of(run)
        if retry_at is not None and retry_at > now:
            self._look_at(retry_at)
            return False
        if self.shut(state.job, run) is not None:
            latest = since(run) + timedelta(seconds=state.job.only_if_within_seconds)
            self._look_at(min(now + LOOK_EVERY, latest) if latest > now else now + LOOK_EVERY)
            return False
        return True

    def _as_waiting(self, runs: Iterable[Run], states: Mapping[str, JobState]) -> list[Waiting]:
        ordered = sorted(runs, key=since)  # those of one moment as they came
        jobs = {job_id: state.job for job_id, state in states.items()}
        return [
            Waiting(
                run.run_id, run.job_id, jobs[run.job_id].uses, jobs[run.job_id].priority,
                self._had.get(run.run_id, frozenset()),
            )
            for run in ordered
        ]  # fmt: skip

    @staticmethod
    def _room(states: Iterable[JobState]) -> dict[str, int | None]:
        most = {state.job.job_id: (max_running(state.job), len(state.running)) for state in states}
        return {job_id: None if limit is None else limit - running for job_id, (limit, running) in most.items()}

    def _waiting_states(self) -> list[JobState]:
        """Return the jobs of which something waits; those of which nothing does any more are forgotten on the way."""
        found = {job_id: self._table.states.get(job_id) for job_id in self._queueing}
        states = [state for state in found.values() if state is not None and state.queued]
        self._queueing = {state.job.job_id: None for state in states}
        return states

    def _look_at(self, at: datetime) -> None:
        if self._next_look is None or at < self._next_look:
            self._next_look = at
            self._wake_at(at)


def since(run: Run) -> datetime:
    """Return since when a run waits for its turn: a retry not before its time."""
    return retry_at_of(run) or run.queued_at


def _overlap_of(job: Job, run: Run) -> Overlap:
    """Return the overlap policy of a run: with `catch_up: all` each is wanted, so they wait for one another."""
    if run.origin is Origin.CATCH_UP and job.catch_up is CatchUp.ALL and job.overlap is Overlap.SKIP:
        return Overlap.QUEUE
    return job.overlap


def _skipped(state: JobState, run: Run, waiting: int) -> Run:
    """Return the row of a run that overlaps with others of its job, and may not."""
    blocking = next(iter(state.running), None)  # the oldest
    why = f"run {blocking} of the job still runs"
    if blocking is None or state.job.overlap is Overlap.QUEUE:
        why = f"{counted(waiting, 'run')} of the job wait already"
    details = {**run.details, "reason": "overlap", "blocking_run": blocking}
    return not_started(run, Status.SKIPPED, why, details)
