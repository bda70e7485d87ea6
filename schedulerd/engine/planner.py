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
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import schedule

from ..core.clock import Clock, ClockJumpDetector, Jump
from ..core.misfires import MOST_DUE, OVERDUE, Due, decided_after_step_back, due_of, spread_out
from ..core.models import Origin
from ..core.trigger import Occurrence, Trigger
from ..core.units import counted, format_duration
from .due import DueJob, Undecided, portions, together
from .planner_loop import Loop

log = logging.getLogger(__name__)

T = TypeVar("T")

STUMBLE = timedelta(seconds=5)  # after an error a job is looked at again
MOST_VOID = 1000  # places in the heap that mean nothing any more
ALWAYS_BLACKED_OUT = timedelta(days=1)  # a job whose blackouts leave no time is looked at this often


class PlannedJob(schedule.Job):
    """A job of the library whose times come from a trigger. `next_run` is aware, in UTC, and None when there is none."""

    def __init__(self, job_id: str, trigger: Trigger, after: datetime, planner: Planner, most: int = MOST_DUE) -> None:
        super().__init__(1, planner)
        self.job_id = job_id
        self.trigger = trigger
        self.decided_through = after  # every occurrence up to here has its row in the ledger
        self.highest = after  # and up to here some have, from before the clock was set back
        self.handed_at = self.handed_before = planner.clock.monotonic()  # when it last was, and the time before
        self.most = most
        self.planner = planner
        self.next: Occurrence | None = None
        self.looks_again = False  # then next_run is no due time, but when to look
        self.fails = False  # its next time cannot be computed
        self.cause: str | None = None  # why it is late
        self.tag(job_id)

    @property
    def should_run(self) -> bool:
        """Return whether the job is due at the planner's present tick."""
        return self.next_run is not None and self.next_run <= self.planner.tick_at

    def run(self) -> DueJob | None:
        """Find what is due, and plan on from there. None when nothing is, or when a blackout holds it back."""
        now = self.planner.tick_at
        due = self._due(now)
        held_until = self._held_until(due, now) if self.trigger.has_blackouts else None
        if held_until is not None:
            self.look_again(held_until)
            return None
        if due.occurrences:
            self.decided_through = due.occurrences[-1].scheduled_at
        if self.trigger.waits_for_end and due.occurrences:
            self.next = self.next_run = None  # until the run has ended
        elif self.looks_again or self.next is None or self.next.scheduled_at <= self.decided_through:
            self._schedule_next_run()  # what was planned may be far from what has been decided now
        cause, self.cause, self.looks_again = self.cause, None, False
        if not due.occurrences:
            if self.should_run:  # nothing is due although it is time: look again, but not at once for ever
                self.look_again(now + STUMBLE)
            return None  # after a stumble its next time is still to come
        now_monotonic = self.planner.clock.monotonic()
        is_again = self._goes_on(due.occurrences[0].scheduled_at, now_monotonic - self.handed_at)
        self.handed_before, self.handed_at = self.handed_at, now_monotonic
        if cause is not None and (due.earlier is not None or now - due.occurrences[0].start_at > OVERDUE):
            due = replace(due, cause=cause)
        asks = self.highest if due.occurrences[0].scheduled_at <= self.highest and not self.trigger.waits_for_end else None
        return DueJob(self.job_id, due, self.next_run, is_again=is_again, asks=asks, plan=self)

    def goes_back(self, left: Undecided) -> bool:
        """Plan again what was handed over last and was not decided; False when the plan has gone on since."""
        if self.decided_through <= left.after:
            return True  # all of it is still to come
        if left.each.is_held or self._has_gone_on(left.each.due.occurrences[-1].scheduled_at):
            return False
        self.decided_through = left.after
        self.handed_at = self.handed_before
        self.cause = left.each.due.cause
        if self.trigger.waits_for_end:
            self.next = left.each.due.occurrences[0]
        self.look_again(left.at)
        return True

    def _has_gone_on(self, last: datetime) -> bool:
        """Return whether anything else was handed over since `last`, or the plan was set back before it."""
        if self.decided_through <= last or self.trigger.waits_for_end:
            return self.decided_through != last
        following = self.trigger.occurrence_after(last)
        return following is not None and following.scheduled_at <= self.decided_through

    def _goes_on(self, scheduled_at: datetime, elapsed_seconds: float) -> bool:
        """Return whether a time comes again, and the job was handed over long enough ago to be started all the same."""
        rhythm = self.trigger.rhythm
        following = rhythm.next_after(scheduled_at) if rhythm is not None and scheduled_at <= self.highest else None
        return following is not None and elapsed_seconds >= (following - scheduled_at).total_seconds() / 2

    def _due(self, now: datetime) -> Due:
        """Return what is due; in the ordinary case that is the planned occurrence alone."""
        at = self.next
        if self.trigger.waits_for_end:
            return self.due_by(now)
        if at is None or self.looks_again:
            return due_of(self.trigger, self.decided_through, now, self.most)
        following = self.trigger.occurrence_after(at.scheduled_at)
        if following is not None and following.start_at <= now:  # late, or the clock was set: several
            return due_of(self.trigger, self.decided_through, now, self.most)
        self._set_next(following)
        return Due([at])

    def _held_until(self, due: Due, now: datetime) -> datetime | None:
        """Return until when a blackout holds back what should have been started before it began, or None."""
        free = self.trigger.free_at(now)
        if free == now or not any(each.skipped is None and now - each.start_at > OVERDUE for each in due.occurrences):
            return None
        return free or now + ALWAYS_BLACKED_OUT

    def look_again(self, at: datetime) -> None:
        """Look at the job at `at`, whatever its next time is: something is in the way of this one."""
        self.next_run, self.looks_again = at, True

    def is_overdue(self, now: datetime) -> bool:
        """Return whether something of it is due that was not handed over yet."""
        return self.looks_again or (self.next is not None and self.next.start_at <= now)

    def due_by(self, now: datetime) -> Due:
        """Return what is due by now, and change nothing."""
        if self.trigger.waits_for_end:
            return Due([self.next] if self.next is not None and self.next.start_at <= now else [])
        return due_of(self.trigger, self.decided_through, now, 1)

    def put_off(self, now: datetime, seconds: float) -> None:
        """Look at it later, but not later than its next time, which is not to be late with the others."""
        following = None if self.trigger.waits_for_end else self.trigger.next_after(now)
        later = now + timedelta(seconds=seconds)
        self.look_again(later if following is None else min(later, following))

    def is_late(self, now: datetime) -> bool:
        """Return whether its next occurrence should have been started a while ago, and was not put off yet."""
        return not self.looks_again and self.next is not None and now - self.next.start_at > OVERDUE

    def step(self, jump: Jump) -> bool:
        """Plan anew, where that is needed, after the clock was set; return whether it was."""
        decided = self.decided_through
        if self.next is not None and self.next.start_at > jump.before:
            self.cause = None  # it was not late so far
        if jump.seconds < 0:
            decided = decided_after_step_back(self.trigger, decided, jump.before, jump.now)
            self.highest = max(self.highest, self.decided_through)
        elif not self.trigger.waits_for_end and decided < self.highest <= jump.now:
            decided = self.highest  # back on the time from before a step back: it is decided up to there
        if decided != self.decided_through:
            self.decided_through = decided
            if self.next is not None:  # otherwise its next time is counted from an end that is still to come
                self._schedule_next_run()
            return True
        if self.looks_again and jump.seconds < 0:
            self.next_run = jump.now
        return self.looks_again

    def _schedule_next_run(self) -> None:
        self._set_next(self.trigger.occurrence_after(self.decided_through))

    def _set_next(self, occurrence: Occurrence | None) -> None:
        self.next = occurrence
        self.next_run = None if occurrence is None else occurrence.start_at


class _Once:
    """A single occurrence that something other than a time of its trigger made due; None only makes the loop turn."""

    def __init__(self, due: DueJob | None, at: datetime) -> None:
        self._due = due
        self.next_run: datetime | None = at

    def run(self) -> DueJob | None:
        self.next_run = None
        return self._due


class Planner(schedule.Scheduler):
    """Plans jobs, and calls `on_due` from its own thread with those that came due together.

    `on_due(jobs, now)` must be quick; it returns what it left undecided, which is handed over again later, as is all when it
    raises. `on_tick` is called at each turn of the loop, at least once a second, and `on_alive` after each turn that went
    well. Jobs that are found overdue together are looked at one by one within `spread_seconds`, so that catching up does not
    delay what is on time.
    """

    def __init__(
        self,
        clock: Clock,
        on_due: Callable[[list[DueJob], datetime], list[Undecided]],
        on_tick: Callable[[datetime], None] = lambda _now: None,
        spread_seconds: float = 60.0,
        on_alive: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.clock = clock
        self.tick_at = clock.now()
        self.spread_seconds = spread_seconds
        self._on_due = on_due
        self._jumps = ClockJumpDetector(clock)
        self._on_jump: Callable[[Jump, Mapping[str, datetime]], None] = lambda _jump, _starts: None
        self._looked_at = clock.monotonic()
        self._by_id: dict[str, PlannedJob] = {}
        self._heap: list[tuple[datetime, int, PlannedJob | _Once]] = []
        self._order = itertools.count()
        self._lock = threading.RLock()
        self._wakeup = threading.Event()
        self._loop = Loop(clock, self._wakeup, on_tick, self.run_pending, self.next_time, on_alive)

    def tell_jumps(self, on_jump: Callable[[Jump, Mapping[str, datetime]], None]) -> None:
        """Name who hears, in the loop's thread, of steps of the clock, with the next starts of jobs as they are now."""
        self._on_jump = on_jump

    def plan(
        self,
        job_id: str,
        trigger: Trigger,
        after: datetime,
        most: int = MOST_DUE,
        cause: str | None = None,
        before_step: datetime | None = None,
    ) -> datetime | None:
        """Plan a job from its first occurrence later than `after`, instead of any earlier plan; return when that starts.

        `after` may lie in the future, when the clock was set back since that occurrence was decided about: `before_step` is
        the last one that was decided about and is past. `most` is how many due occurrences are looked at one by one,
        `cause` says why those are late that are found so.
        """
        with self._lock:
            self.unplan([job_id])
            now = self.clock.now()
            job = PlannedJob(job_id, trigger, after, self, most)
            job.cause = cause
            job.decided_through = decided_after_step_back(trigger, after, after, now)
            if before_step is not None and job.decided_through == now and not trigger.waits_for_end:
                job.decided_through = before_step  # what has come since then, nobody has looked at
            job.do(lambda: None)  # the library's way into its registry; it plans the first time
            self._by_id[job_id] = job
            self._push(job)
        self._wakeup.set()
        return job.next_run

    def look_at_most(self, job_id: str, most: int) -> None:
        """Change how many due occurrences of a job are looked at one by one; its plan stays."""
        with self._lock:
            job = self._by_id.get(job_id)
            if job is not None:
                job.most = most

    def plan_from_end(self, job_id: str, ended_at: datetime) -> datetime | None:
        """Plan the next time of a job that is counted from the end of its last run; return it, None for any other job."""
        with self._lock:
            job = self._by_id.get(job_id)
            if job is None or not job.trigger.waits_for_end:
                return None
            job.decided_through = ended_at
            job.looks_again = False
            job._schedule_next_run()
            self._push(job)
        self._wakeup.set()
        return job.next_run

    def plan_once(self, job_id: str, occurrence: Occurrence, origin: Origin, details: Mapping[str, Any]) -> None:
        """Make a job due once, besides its times."""
        with self._lock:
            due = DueJob(job_id, Due([occurrence]), None, origin, {occurrence.scheduled_at: details})
            self._push(_Once(due, occurrence.start_at))
        self._wakeup.set()

    def wake_at(self, at: datetime) -> None:
        """Let the loop turn, and `on_tick` be called, at a moment at which nothing may be due."""
        with self._lock:
            self._push(_Once(None, at))
        self._wakeup.set()

    def overdue(self, job_ids: Iterable[str], now: datetime) -> list[DueJob]:
        """Return of which of the jobs something is due that was not handed over yet: it is spaced, put off or held back."""
        with self._lock:
            found = [job for job in map(self._by_id.get, job_ids) if job is not None and job.is_overdue(now)]
            due = [(job, job.due_by(now)) for job in found]
        return [DueJob(job.job_id, each, None, plan=job) for job, each in due if each.occurrences]

    def unplan(self, job_ids: Iterable[Hashable]) -> None:
        """Forget jobs; those that are not planned are passed over."""
        with self._lock:
            gone = [job for job in (self._by_id.pop(str(job_id), None) for job_id in job_ids) if job is not None]
            for job in gone:
                self.cancel_job(job)
                job.next_run = None  # its place in the heap is void now

    def next_time(self) -> datetime | None:
        """Return when the next job is to be looked at, or None when none is planned."""
        with self._lock:
            while self._heap and self._heap[0][2].next_run != self._heap[0][0]:
                heapq.heappop(self._heap)
            return self._heap[0][0] if self._heap else None

    def run_pending(self) -> None:
        """Hand over everything that is due now. One look at the heap when nothing is."""
        cause = self._look_at_the_clock()
        self.tick_at = now = self.clock.now()
        with self._lock:
            found = self._put_off(self._pop_due(), cause)
            batch = together([each for each in map(self._turn, found) if each is not None])
        for portion in portions(batch):
            self.put_back(self._handed_over(portion, now))

    def _handed_over(self, portion: list[DueJob], now: datetime) -> list[Undecided]:
        """Hand over what is due; return what is left undecided: all of it after an error, which costs no other portion."""
        try:
            undecided = self._on_due(portion, now)
        except Exception as error:
            self._loop.deciding.failed(error)
            return [each.all_left(now + STUMBLE) for each in portion]
        self._loop.deciding.succeeded()
        return undecided

    @property
    def trouble(self) -> str | None:
        """Return what keeps jobs from being started on time, in words, or None."""
        with self._lock:
            failing = sorted(job.job_id for job in self._by_id.values() if job.fails)
        times = f"the next times of {', '.join(failing[:3])} cannot be computed ({counted(len(failing), 'job')})"
        return "; ".join(filter(None, (self._loop.trouble, times if failing else None))) or None

    def start(self) -> None:
        """Start the loop's thread."""
        self._loop.start()

    def stop(self) -> None:
        """End the loop; nothing is handed over after it returns."""
        self._loop.stop()

    def _look_at_the_clock(self) -> str | None:
        """Return why jobs may be found overdue now: the clock was set forward, the host slept, or nobody looked."""
        looked_at, self._looked_at = self._looked_at, self.clock.monotonic()
        jump = self._jumps.poll()
        if jump is not None:
            self._jumped(jump)
            return str(jump)
        held_up = self._looked_at - looked_at
        return f"the daemon was held up for {format_duration(held_up)}" if held_up > OVERDUE.total_seconds() else None

    def _jumped(self, jump: Jump) -> None:
        """Take note of a step of the clock: a forward one makes jobs overdue, after one back they are planned anew."""
        log.warning("%s", jump)
        with self._lock:
            for job in list(self._by_id.values()):
                if self._guarded(job, partial(job.step, jump)) is not False:
                    self._push(job)
            if jump.seconds < 0:
                self._bring_back(timedelta(seconds=jump.seconds))
            starts = {job_id: job.next.start_at for job_id, job in self._by_id.items() if job.next and not job.looks_again}
        self._on_jump(jump, starts)

    def _bring_back(self, step: timedelta) -> None:
        """Let what is due once wait for as long as it was to, after the clock was set back."""
        for each in {each for _, _, each in self._heap if isinstance(each, _Once)}:
            if each.next_run is not None:
                each.next_run += step
                self._push(each)

    def _pop_due(self) -> list[PlannedJob | _Once]:
        found: dict[PlannedJob | _Once, None] = {}  # a job that was planned anew for the same time is in the heap twice
        while self._heap and self._heap[0][0] <= self.tick_at:
            at, _, job = heapq.heappop(self._heap)
            if job.next_run == at:
                found[job] = None
        return list(found)

    def _put_off(self, found: list[PlannedJob | _Once], cause: str | None) -> list[PlannedJob | _Once]:
        """Return those that are looked at now; of many that are overdue the others have their turn a little later."""
        late = [job for job in found if isinstance(job, PlannedJob) and job.is_late(self.tick_at)]
        if not late:
            return found
        waiting = set()
        for job, seconds in zip(late, spread_out(len(late), self.spread_seconds), strict=True):
            job.cause = job.cause or cause
            if seconds > 0:
                self._guarded(job, partial(job.put_off, self.tick_at, seconds))
                self._push(job)
                waiting.add(job)
        return [job for job in found if job not in waiting]

    def _turn(self, job: PlannedJob | _Once) -> DueJob | None:
        """Let one due job find its occurrences."""
        if isinstance(job, _Once):
            return self._held(job.run())
        found = self._guarded(job, job.run)
        self._push(job)
        return found

    def _held(self, due: DueJob | None) -> DueJob | None:
        """Return what is due once, with whether its job was planned anew since."""
        if due is None or due.plan is None or self._by_id.get(due.job_id) is due.plan:
            return due
        return replace(due, is_void=True)

    def _guarded(self, job: PlannedJob, act: Callable[[], T]) -> T | None:
        """Do something with a job's times; one whose trigger fails must not cost the others theirs."""
        try:
            found = act()
        except Exception:
            if not job.fails:  # once for each job, or a time zone that is gone would fill the log
                log.exception("job %s: its next time could not be computed, trying again", job.job_id)
            job.fails = True
            job.look_again(self.clock.now() + STUMBLE)
            return None
        job.fails = False
        return found

    def put_back(self, undecided: Sequence[Undecided]) -> None:
        """Hand over again, later, what could not be decided. Called from any thread."""
        with self._lock:
            for left in undecided:
                job = left.each.plan
                is_planned = isinstance(job, PlannedJob) and self._by_id.get(job.job_id) is job
                if isinstance(job, PlannedJob) and is_planned and job.goes_back(left):
                    self._push(job)
                else:
                    each = replace(left.each.later_than(left.after), is_held=job is not None)
                    self._push(_Once(each, left.at))
        if undecided:
            self._wakeup.set()

    def _push(self, job: PlannedJob | _Once) -> None:
        if job.next_run is not None:
            heapq.heappush(self._heap, (job.next_run, next(self._order), job))
        if len(self._heap) > 2 * len(self._by_id) + MOST_VOID:
            live = {job: (at, order, job) for at, order, job in self._heap if job.next_run == at}
            self._heap = list(live.values())
            heapq.heapify(self._heap)
