"""The loop that knows when: the `schedule` library's registry and `run_pending`, on our own time.

The only file that imports `schedule`. The library's jobs, tags, `do`, `get_jobs`, `cancel_job` and `run_pending` stay; what
it does badly for a daemon is overridden here:

- it reads naive local time: here times come from triggers and a `Clock`, aware and in UTC;
- it plans the next time from "now" after the work: here from the last due time, so nothing drifts;
- it looks at each job at every tick: here a heap knows what is next, so jobs that are not due cost nothing;
- an exception leaves its loop: here a job that stumbles is planned again, and the others go on.

The loop's thread decides what is due and hands it over; it never runs a job.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import schedule

from .clock import Clock
from .model import Trigger
from .policy import Due, due_times

log = logging.getLogger(__name__)

STUMBLE = timedelta(seconds=5)  # after an error a job is looked at again


@dataclass(frozen=True, slots=True)
class DueJob:
    """A job that has come due: which occurrences, and when it is due next."""

    job_id: str
    due: Due
    next_at: datetime | None


class PlannedJob(schedule.Job):
    """A job of the library whose times come from a trigger. `next_run` is aware, in UTC, and None when there is none."""

    def __init__(self, job_id: str, trigger: Trigger, after: datetime, planner: Planner) -> None:
        super().__init__(1, planner)
        self.job_id = job_id
        self.trigger = trigger
        self.decided_through = after  # every occurrence up to here has its row in the ledger
        self.planner = planner
        self.has_stumbled = False  # then next_run is no due time, but when to look again
        self.tag(job_id)

    @property
    def should_run(self) -> bool:
        """Return whether the job is due at the planner's present tick."""
        return self.next_run is not None and self.next_run <= self.planner.tick_at

    def run(self) -> DueJob | None:
        """Find what is due, and plan on from there. None when nothing is, after a stumble."""
        now, at = self.planner.tick_at, self.next_run
        assert at is not None  # noqa: S101 - it is in the heap, so it has a time
        following = self.trigger.next_after(at)
        due = Due([at])
        if self.has_stumbled or (following is not None and following <= now):  # late, or the clock stepped: several
            due = due_times(self.trigger, self.decided_through, now)
            following = self.trigger.next_after(due.times[-1] if due.times else self.decided_through)
        self.next_run, self.has_stumbled = following, False
        if not due.times:
            return None  # after a stumble: its next time is still to come
        self.decided_through = due.times[-1]
        return DueJob(self.job_id, due, self.next_run)

    def look_again(self, at: datetime) -> None:
        """Look at the job at `at`, whatever its next time is: something went wrong with this one."""
        self.next_run, self.has_stumbled = at, True

    def _schedule_next_run(self) -> None:
        self.next_run = self.trigger.next_after(self.decided_through)


class Planner(schedule.Scheduler):
    """Plans jobs, and calls `on_due` from its own thread with those that came due together.

    `on_due(jobs, now)` must be quick; it returns those that it could not decide about, which are handed over again later,
    as are all when it raises. `on_tick` is called at each turn of the loop, at least once a second: it feeds the watchdog.
    """

    def __init__(
        self,
        clock: Clock,
        on_due: Callable[[list[DueJob], datetime], list[DueJob]],
        on_tick: Callable[[datetime], None] = lambda _now: None,
    ) -> None:
        super().__init__()
        self.clock = clock
        self.tick_at = clock.now()
        self._on_due = on_due
        self._on_tick = on_tick
        self._by_id: dict[str, PlannedJob] = {}
        self._heap: list[tuple[datetime, int, PlannedJob]] = []
        self._order = itertools.count()
        self._lock = threading.RLock()
        self._wakeup = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="planner", daemon=True)

    def plan(self, job_id: str, trigger: Trigger, after: datetime) -> datetime | None:
        """Plan a job from its first occurrence later than `after`, instead of any earlier plan; return that time."""
        with self._lock:
            self.unplan([job_id])
            job = PlannedJob(job_id, trigger, after, self)
            job.do(lambda: None)  # the library's way into its registry; it plans the first time
            self._by_id[job_id] = job
            self._push(job)
        self._wakeup.set()
        return job.next_run

    def unplan(self, job_ids: Iterable[Hashable]) -> None:
        """Forget jobs; those that are not planned are passed over."""
        with self._lock:
            gone = [job for job in (self._by_id.pop(str(job_id), None) for job_id in job_ids) if job is not None]
            for job in gone:
                self.cancel_job(job)
                job.next_run = None  # its place in the heap is void now

    def next_time(self) -> datetime | None:
        """Return when the next job is due, or None when none is planned."""
        with self._lock:
            while self._heap and self._heap[0][2].next_run != self._heap[0][0]:
                heapq.heappop(self._heap)
            return self._heap[0][0] if self._heap else None

    def run_pending(self) -> None:
        """Hand over everything that is due now. One look at the heap when nothing is."""
        self.tick_at = now = self.clock.now()
        with self._lock:
            due = [self._turn(job) for job in self._pop_due()]
        batch = [each for each in due if each is not None]
        if not batch:
            return
        undecided = batch
        try:
            undecided = self._on_due(batch, now)
        finally:
            self._put_back(undecided, now)

    def start(self) -> None:
        """Start the loop's thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the loop; nothing is handed over after it returns."""
        self._stopping = True
        self._wakeup.set()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self) -> None:
        while not self._stopping:
            try:
                self._on_tick(self.clock.now())
                self.run_pending()
            except Exception:  # the loop must not die: nothing would ever start again
                log.exception("the planner stumbled and goes on")
            self.clock.wait(self._wakeup, self.next_time())
            self._wakeup.clear()

    def _pop_due(self) -> list[PlannedJob]:
        found = []
        while self._heap and self._heap[0][0] <= self.tick_at:
            at, _, job = heapq.heappop(self._heap)
            if job.next_run == at:
                found.append(job)
        return found

    def _turn(self, job: PlannedJob) -> DueJob | None:
        """Let one due job find its occurrences; a job whose trigger fails must not cost the others theirs."""
        try:
            return job.run()
        except Exception:
            log.exception("job %s: its next time could not be computed, trying again", job.job_id)
            job.look_again(self.tick_at + STUMBLE)
            return None
        finally:
            self._push(job)

    def _put_back(self, batch: list[DueJob], now: datetime) -> None:
        with self._lock:
            for each in batch:
                job = self._by_id.get(each.job_id)
                if job is not None:
                    job.decided_through = (each.due.first or each.due.times[0]) - timedelta(microseconds=1)
                    job.look_again(now + STUMBLE)
                    self._push(job)

    def _push(self, job: PlannedJob) -> None:
        if job.next_run is not None:
            heapq.heappush(self._heap, (job.next_run, next(self._order), job))
