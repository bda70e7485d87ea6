"""The timetable: the registry of the `schedule` library, and a heap of the next times of all jobs.

This module and `planned_job` are the only ones that import `schedule`. They use the library's jobs, tags, `do`, `get_jobs`,
`cancel_job` and `run_pending`. They override the behaviour that does not suit a daemon:

- The library reads naive local time. Here, triggers and a `Clock` provide the times.
- The library examines each job at every tick. Here, a heap has the next times, so jobs that are not due cost nothing.
- An exception ends the library's loop. Here, a job that fails is planned again, and the others continue.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import schedule

from ..core.clock import Clock, Jump
from ..core.misfires import MOST_DUE, Due, decided_after_step_back, spread_out
from ..core.models import Origin
from ..core.trigger import Occurrence, Trigger
from ..core.units import counted
from .due import DueJob, Undecided, together
from .planned_job import ERROR_DELAY, OneTime, PlannedJob, Tick

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_VOID = 1000  # entries of the heap that are no longer valid


class Timetable(schedule.Scheduler):
    """The planned times of all jobs. Any thread may use it.

    `run_pending` moves due jobs to `due`, from which the planner hands them over. Jobs that are overdue together are
    checked one by one within `spread_seconds`, so that catching up does not delay jobs that are on time.
    """

    def __init__(self, clock: Clock, spread_seconds: float = 60.0) -> None:
        super().__init__()
        self.spread_seconds = spread_seconds
        self.due: list[DueJob] = []
        self.wakeup = threading.Event()  # set when the next time may be earlier
        self._clock = clock
        self._tick = Tick(clock)
        self._by_id: dict[str, PlannedJob] = {}
        self._heap: list[tuple[datetime, int, PlannedJob | OneTime]] = []
        self._order = itertools.count()
        self._lock = threading.RLock()

    def plan(
        self,
        job_id: str,
        trigger: Trigger,
        after: datetime,
        most: int = MOST_DUE,
        cause: str | None = None,
        before_step: datetime | None = None,
    ) -> datetime | None:
        """Plan a job from its first occurrence later than `after`, and replace any earlier plan. Return its start.

        `after` may be in the future, when the clock was set back after that occurrence was decided. `before_step` is then
        the last decided occurrence that is in the past. `most` is the number of due occurrences to hand over one by one.
        `cause` is the cause to record when they are late.
        """
        with self._lock:
            self.unplan([job_id])
            now = self._clock.now()
            job = PlannedJob(job_id, trigger, after, self, self._tick, most)
            job.cause = cause
            job.decided_through = decided_after_step_back(trigger, after, after, now)
            if before_step is not None and job.decided_through == now and not trigger.waits_for_end:
                job.decided_through = before_step  # no occurrence since then has been decided
            job.do(lambda: None)  # registers the job in the library, which plans the first time
            self._by_id[job_id] = job
            self._push(job)
        self.wakeup.set()
        return job.next_run

    def limit_due(self, job_id: str, most: int) -> None:
        """Change the number of due occurrences of a job that are handed over one by one. Its plan does not change."""
        with self._lock:
            job = self._by_id.get(job_id)
            if job is not None:
                job.most = most

    def plan_from_end(self, job_id: str, ended_at: datetime) -> datetime | None:
        """Plan and return the next time of a job that is counted from the end of its last run; None for any other job."""
        with self._lock:
            job = self._by_id.get(job_id)
            if job is None or not job.trigger.waits_for_end:
                return None
            next_at = job.plan_from_end(ended_at)
            self._push(job)
        self.wakeup.set()
        return next_at

    def plan_once(self, job_id: str, occurrence: Occurrence, origin: Origin, details: Mapping[str, Any]) -> None:
        """Make a job due once, in addition to its times."""
        with self._lock:
            due = DueJob(job_id, Due([occurrence]), None, origin, {occurrence.scheduled_at: details})
            self._push(OneTime(due, occurrence.start_at))
        self.wakeup.set()

    def wake_at(self, at: datetime) -> None:
        """Wake the planner's loop at `at`, even when no job is due then."""
        with self._lock:
            self._push(OneTime(None, at))
        self.wakeup.set()

    def overdue(self, job_ids: Iterable[str], now: datetime) -> list[DueJob]:
        """Return the due occurrences of some jobs that were not handed over yet: they are spaced, postponed or delayed."""
        with self._lock:
            found = [job for job in map(self._by_id.get, job_ids) if job is not None and job.is_overdue(now)]
            due = [(job, job.due_by(now)) for job in found]
        return [DueJob(job.job_id, each, None, plan=job) for job, each in due if each.occurrences]

    def unplan(self, job_ids: Iterable[Hashable]) -> None:
        """Forget jobs. Those that are not planned are ignored."""
        with self._lock:
            gone = [job for job in (self._by_id.pop(str(job_id), None) for job_id in job_ids) if job is not None]
            for job in gone:
                self.cancel_job(job)
                job.next_run = None  # its entry of the heap is void now

    def next_time(self) -> datetime | None:
        """Return the time of the next check of a job, or None when none is planned."""
        with self._lock:
            while self._heap and self._heap[0][2].next_run != self._heap[0][0]:
                heapq.heappop(self._heap)
            return self._heap[0][0] if self._heap else None

    @property
    def tick_at(self) -> datetime:
        """Return the time of the present tick."""
        return self._tick.at

    def run_pending(self, cause: str | None = None) -> None:
        """Move all jobs that are due now to `due`. When none is due, this costs one check of the heap.

        `cause` is the cause to record for jobs that are found overdue.
        """
        with self._lock:
            self._tick.advance()
            found = self._put_off(self._pop_due(), cause)
            self.due += together([each for each in map(self._turn, found) if each is not None])

    def take_due(self) -> list[DueJob]:
        """Return and forget the due jobs that `run_pending` has found."""
        with self._lock:
            found, self.due = self.due, []
        return found

    def put_back(self, undecided: Sequence[Undecided]) -> None:
        """Plan undecided occurrences to be handed over again later. Any thread may call this."""
        with self._lock:
            for left in undecided:
                job = left.each.plan
                is_planned = isinstance(job, PlannedJob) and self._by_id.get(job.job_id) is job
                if isinstance(job, PlannedJob) and is_planned and job.goes_back(left):
                    self._push(job)
                else:
                    each = replace(left.each.later_than(left.after), is_held=job is not None)
                    self._push(OneTime(each, left.at))
        if undecided:
            self.wakeup.set()

    def step(self, jump: Jump) -> dict[str, datetime]:
        """Plan again after a step of the clock. Return the next starts of the jobs, by id.

        A step forward makes jobs overdue. After a step back, they are planned again.
        """
        with self._lock:
            for job in list(self._by_id.values()):
                if self._guarded(job, partial(job.step, jump)) is not False:
                    self._push(job)
            if jump.seconds < 0:
                self._move_one_times(timedelta(seconds=jump.seconds))
            return {job_id: job.next.start_at for job_id, job in self._by_id.items() if job.next and not job.looks_again}

    @property
    def trouble(self) -> str | None:
        """Return the jobs whose next times cannot be computed, as a message, or None."""
        with self._lock:
            failing = sorted(job.job_id for job in self._by_id.values() if job.fails)
        if not failing:
            return None
        return f"the next times of {', '.join(failing[:3])} cannot be computed ({counted(len(failing), 'job')})"

    def _move_one_times(self, step: timedelta) -> None:
        """Keep the remaining wait of one-time occurrences after the clock was set back."""
        for each in {each for _, _, each in self._heap if isinstance(each, OneTime)}:
            if each.next_run is not None:
                each.next_run += step
                self._push(each)

    def _pop_due(self) -> list[PlannedJob | OneTime]:
        found: dict[PlannedJob | OneTime, None] = {}  # a job that was planned again for the same time is in the heap twice
        while self._heap and self._heap[0][0] <= self._tick.at:
            at, _, job = heapq.heappop(self._heap)
            if job.next_run == at:
                found[job] = None
        return list(found)

    def _put_off(self, found: list[PlannedJob | OneTime], cause: str | None) -> list[PlannedJob | OneTime]:
        """Return the jobs to check now. When many are overdue, the others follow slightly later."""
        late = [job for job in found if isinstance(job, PlannedJob) and job.is_late(self._tick.at)]
        if not late:
            return found
        waiting = set()
        for job, seconds in zip(late, spread_out(len(late), self.spread_seconds), strict=True):
            job.cause = job.cause or cause
            if seconds > 0:
                self._guarded(job, partial(job.put_off, self._tick.at, seconds))
                self._push(job)
                waiting.add(job)
        return [job for job in found if job not in waiting]

    def _turn(self, job: PlannedJob | OneTime) -> DueJob | None:
        """Return the due occurrences of one job."""
        if isinstance(job, OneTime):
            return self._with_validity(job.run())
        found = self._guarded(job, job.run)
        self._push(job)
        return found

    def _with_validity(self, due: DueJob | None) -> DueJob | None:
        """Return a single due occurrence, marked void when its job was planned again since."""
        if due is None or due.plan is None or self._by_id.get(due.job_id) is due.plan:
            return due
        return replace(due, is_void=True)

    def _guarded(self, job: PlannedJob, act: Callable[[], T]) -> T | None:
        """Call `act`; a job whose trigger raises must not delay the others."""
        try:
            found = act()
        except Exception:
            if not job.fails:  # once for each job, since a missing time zone would fill the log otherwise
                log.exception("job %s: its next time could not be computed, trying again", job.job_id)
            job.fails = True
            job.look_again(self._clock.now() + ERROR_DELAY)
            return None
        job.fails = False
        return found

    def _push(self, job: PlannedJob | OneTime) -> None:
        if job.next_run is not None:
            heapq.heappush(self._heap, (job.next_run, next(self._order), job))
        if len(self._heap) > 2 * len(self._by_id) + MOST_VOID:
            live = {job: (at, order, job) for at, order, job in self._heap if job.next_run == at}
            self._heap = list(live.values())
            heapq.heapify(self._heap)
