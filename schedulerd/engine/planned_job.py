"""Jobs in the registry of the `schedule` library, with the times of their triggers instead of the library's own.

The library's job plans its next time from "now" after the work, in naive local time. Here the next time follows the last
due time, aware and in UTC, so times do not drift.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import schedule

from ..core.clock import Clock, Jump
from ..core.misfires import MOST_DUE, OVERDUE, Due, decided_after_step_back, due_of
from ..core.trigger import Occurrence, Trigger
from .due import DueJob, Undecided

ERROR_DELAY = timedelta(seconds=5)  # after an error, until a job is checked again
ALWAYS_BLACKED_OUT = timedelta(days=1)  # a job whose blackouts leave no time is checked this often


class Tick:
    """The time for which one iteration of the planner's loop decides. It is the same for all jobs of an iteration."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.at = clock.now()

    def advance(self) -> None:
        """Begin a new iteration at the present time."""
        self.at = self.clock.now()


class PlannedJob(schedule.Job):
    """A job of the library with the times of a trigger. `next_run` is aware, in UTC, and None without a next time."""

    def __init__(
        self, job_id: str, trigger: Trigger, after: datetime, registry: schedule.Scheduler, tick: Tick, most: int = MOST_DUE
    ) -> None:
        super().__init__(1, registry)
        self.job_id = job_id
        self.trigger = trigger
        self.decided_through = after  # every occurrence up to this time has its row in the ledger
        self.highest = after  # and up to this time some have, from before the clock was set back
        self.handed_at = self.handed_before = tick.clock.monotonic()  # when it was handed over last, and before that
        self.most = most
        self._tick = tick
        self.next: Occurrence | None = None
        self.looks_again = False  # next_run is the time to check the job again, and not a due time
        self.fails = False  # its next time cannot be computed
        self.cause: str | None = None  # why it is late
        self.tag(job_id)

    @property
    def should_run(self) -> bool:
        """Return whether the job is due at the present tick."""
        return self.next_run is not None and self.next_run <= self._tick.at

    def run(self) -> DueJob | None:
        """Return the due occurrences, and plan the next time. Return None when none is due, or a blackout delays them."""
        now = self._tick.at
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
            self._schedule_next_run()  # the planned time may be far from the decided one
        cause, self.cause, self.looks_again = self.cause, None, False
        if not due.occurrences:
            if self.should_run:  # no occurrence is due at its time: check again, but not in a busy loop
                self.look_again(now + ERROR_DELAY)
            return None  # after an error, the next time is still in the future
        now_monotonic = self._tick.clock.monotonic()
        is_again = self._continues(due.occurrences[0].scheduled_at, now_monotonic - self.handed_at)
        self.handed_before, self.handed_at = self.handed_at, now_monotonic
        if cause is not None and (due.earlier is not None or now - due.occurrences[0].start_at > OVERDUE):
            due = replace(due, cause=cause)
        asks = self.highest if due.occurrences[0].scheduled_at <= self.highest and not self.trigger.waits_for_end else None
        return DueJob(self.job_id, due, self.next_run, is_again=is_again, asks=asks, plan=self)

    def goes_back(self, left: Undecided) -> bool:
        """Plan the last occurrences again, which were not decided. Return False when later ones were handed over since."""
        if self.decided_through <= left.after:
            return True  # all of them are still in the future
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
        """Return whether other occurrences were handed over since `last`, or the plan was set back before it."""
        if self.decided_through <= last or self.trigger.waits_for_end:
            return self.decided_through != last
        following = self.trigger.occurrence_after(last)
        return following is not None and following.scheduled_at <= self.decided_through

    def _continues(self, scheduled_at: datetime, elapsed_seconds: float) -> bool:
        """Return whether a time occurs again, and the job was handed over so long ago that it starts nevertheless."""
        rhythm = self.trigger.rhythm
        following = rhythm.next_after(scheduled_at) if rhythm is not None and scheduled_at <= self.highest else None
        return following is not None and elapsed_seconds >= (following - scheduled_at).total_seconds() / 2

    def _due(self, now: datetime) -> Due:
        """Return the due occurrences: usually the planned one alone."""
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
        """Return the end of a blackout that delays occurrences which were due before it began, or None."""
        free = self.trigger.free_at(now)
        if free == now or not any(each.skipped is None and now - each.start_at > OVERDUE for each in due.occurrences):
            return None
        return free or now + ALWAYS_BLACKED_OUT

    def plan_from_end(self, ended_at: datetime) -> datetime | None:
        """Plan and return the next time, counted from the end of a run."""
        self.decided_through = ended_at
        self.looks_again = False
        self._schedule_next_run()
        return self.next_run

    def look_again(self, at: datetime) -> None:
        """Check the job at `at`, regardless of its next time, because this occurrence cannot be handled now."""
        self.next_run, self.looks_again = at, True

    def is_overdue(self, now: datetime) -> bool:
        """Return whether an occurrence is due that was not handed over yet."""
        return self.looks_again or (self.next is not None and self.next.start_at <= now)

    def due_by(self, now: datetime) -> Due:
        """Return the occurrences that are due at `now`, without a change of state."""
        if self.trigger.waits_for_end:
            return Due([self.next] if self.next is not None and self.next.start_at <= now else [])
        return due_of(self.trigger, self.decided_through, now, 1)

    def put_off(self, now: datetime, seconds: float) -> None:
        """Check the job `seconds` later, but not after its next time, which must not become late, too."""
        following = None if self.trigger.waits_for_end else self.trigger.next_after(now)
        later = now + timedelta(seconds=seconds)
        self.look_again(later if following is None else min(later, following))

    def is_late(self, now: datetime) -> bool:
        """Return whether its next occurrence is overdue and was not postponed yet."""
        return not self.looks_again and self.next is not None and now - self.next.start_at > OVERDUE

    def step(self, jump: Jump) -> bool:
        """Plan the job again after a step of the clock, if needed. Return whether it was needed."""
        decided = self.decided_through
        if self.next is not None and self.next.start_at > jump.before:
            self.cause = None  # it was not late before the step
        if jump.seconds < 0:
            decided = decided_after_step_back(self.trigger, decided, jump.before, jump.now)
            self.highest = max(self.highest, self.decided_through)
        elif not self.trigger.waits_for_end and decided < self.highest <= jump.now:
            decided = self.highest  # the clock has passed the time of a step back: all occurrences up to it are decided
        if decided != self.decided_through:
            self.decided_through = decided
            if self.next is not None:  # otherwise, its next time is counted from the end of a run
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


class OneTime:
    """A single occurrence that another cause than the trigger makes due. Without one (None), it only wakes the loop."""

    def __init__(self, due: DueJob | None, at: datetime) -> None:
        self._due = due
        self.next_run: datetime | None = at

    def run(self) -> DueJob | None:
        """Return the occurrence; it is due once."""
        self.next_run = None
        return self._due
