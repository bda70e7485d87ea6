"""From due to done: each occurrence is decided by policy, entered into the ledger, and only then handed to the executor.

The order is always the same: choose under the table's lock; record; when the row is durable, launch; when the run has
ended, record its end; when that is durable, tell whoever waits. A run that the ledger does not take (somebody else was
first) is not launched.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from ..core.clock import Clock
from ..core.errors import StartError
from ..core.loop_steps import StepSequence
from ..core.misfires import (
    CHANGED,
    PAUSED,
    Decision,
    decide_due,
    decide_held,
    one_by_one,
    pass_all,
    pause_is_over,
    still_starts,
    why_too_late,
)
from ..core.models import MICROSECOND, UNFINISHED, Job, Origin, Result, Run, Status, finish
from ..core.retries import within_deadline
from ..store.protocol import Store
from .cancellation import Cancellation
from .completion import NO_JOB, Ends
from .due import DueJob, Undecided, details_of, new_run, passed_run
from .executor import Finished
from .pauses import Pauses
from .recording import LOOK_AGAIN, DueEntry, Recorder
from .run_queue import RunQueue
from .state import JobState, JobTable
from .stop_orders import Launcher, StopOrders
from .waiters import Waiters

log = logging.getLogger(__name__)


class Scheduler:
    """Decides, records and launches. Called from the planner's, the API's and the executor's threads."""

    def __init__(self, table: JobTable, store: Store, clock: Clock, node: str) -> None:
        self.table = table
        self.store = store
        self.clock = clock
        self.node = node
        self.is_stopping = False
        self._launcher: Launcher | None = None
        self._on_end: Callable[[str, datetime], datetime | None] = lambda _job_id, _at: None
        self.waiters = Waiters(table)
        self.run_queue = RunQueue(table, clock)
        self.stop_orders = StopOrders(table, clock)
        self._ends = Ends(table, store, clock, self.run_queue, self.waiters, self.stop_orders, self.promote, self._over)
        self._cancellation = Cancellation(table, store, self.run_queue, self._ends, self.stop_orders)
        self._went_idle = threading.Condition(table.lock)
        self._ends.on_idle = self._went_idle.notify_all
        self.pauses = Pauses(table, store, self.promote)
        self._recorder = Recorder(table, store, clock, self.run_queue, self._taken, self.promote, self.ended_at)
        self.unwritten = self._recorder.unwritten
        self._later: deque[Callable[[], None]] = deque()  # what is done when something can be written down
        self.tick = StepSequence(clock, {  # what is due with time alone; called at each turn of the planner's loop
            "the end of pauses": self.pauses.end_those_over,
            "orders to end runs": lambda _now: self.stop_orders.give_again(),
            "what could not be written down": lambda _now: self._do_later(),
            "runs that wait": self._promote_in_time,
        })  # fmt: skip

    def launch_with(self, launcher: Launcher) -> None:
        """Name the executor; it is built after the scheduler, which it reports to."""
        self._launcher = launcher
        self.stop_orders.launch_with(launcher)
        self._ends.on_written = launcher.forget

    def tell_ends(self, on_end: Callable[[str, datetime], datetime | None], on_ends: Callable[[list[Run]], None]) -> None:
        """Name who plans on from the end of a job's run (and says when), and who starts other jobs after final ends."""
        self._on_end, self._ends.on_final = on_end, on_ends

    def hand_back_to(self, put_back: Callable[[Sequence[Undecided]], None]) -> None:
        """Name who hands over again what could not be written down."""
        self._recorder.put_back = put_back

    # Due

    def on_due(self, batch: list[DueJob], now: datetime) -> list[Undecided]:
        """Decide about everything that has come due together, and enter it into the ledger in one go.

        Returns what is left to be decided; what cannot be decided must not cost the others theirs.
        """
        if not self.store.accepts_runs:  # what cannot be written down is not decided about: it follows catch_up later
            for each in batch:
                self.unwritten.note(each)
            return [each.all_left(now + LOOK_AGAIN) for each in batch]
        entries: list[DueEntry] = []
        undecided: list[Undecided] = []
        with self.table.lock:  # to choose; launching happens outside
            for each in batch:
                state = self.table.states.get(each.job_id)
                if self.is_stopping:
                    continue
                if state is None or each.is_void:  # taken away a moment ago, or planned anew
                    entries.append(DueEntry(self._given_up(each, CHANGED, now), each, each.first))
                    continue
                decided: list[DueEntry] = []
                try:
                    decision = self._decide(state, each, now)
                    decided = self._entries(state, each, decision, now)
                    next_at = self._next_of(state, each, now)
                    admitted = [self._admitted(state, entry) for entry in decided]
                except Exception:
                    log.exception("job %s: what is due could not be decided, trying again", each.job_id)
                    self._unseat(decided)
                    undecided.append(each.all_left(now + LOOK_AGAIN))
                    continue
                entries += admitted
                state.next_run_at = next_at
                self.table.touch(state)
                if decision.later:
                    at = now + timedelta(seconds=state.job.catch_up_spacing_seconds)
                    undecided.append(each.left(decision.later[0].scheduled_at, at))
            ways_on = self._recorded(entries)
        for go_on in ways_on:
            go_on()
        return undecided

    def _admitted(self, state: JobState, entry: DueEntry) -> DueEntry:
        if entry.run.status not in UNFINISHED:
            return entry
        return replace(entry, run=self.run_queue.admitted(state, entry.run))

    def _recorded(self, entries: list[DueEntry]) -> list[Callable[[], None]]:
        """Hand rows to the store. When that fails none of them has a place: they are decided about again."""
        try:
            return self._recorder.record_due(entries)
        except Exception:
            self._unseat(entries)
            raise

    def _unseat(self, entries: Sequence[DueEntry]) -> None:
        """Take back that rows were admitted, which nobody will see. The table's lock is held."""
        for entry in entries:
            state = self.table.states.get(entry.run.job_id)
            if state is not None:
                self.run_queue.leave(state, entry.run.run_id)

    @staticmethod
    def _next_of(state: JobState, each: DueJob, now: datetime) -> datetime | None:
        if each.origin is not Origin.SCHEDULE or state.job.trigger is None or each.is_held:
            return state.next_run_at
        return state.job.trigger.next_after(now) if state.job.trigger.has_blackouts else each.next_at

    @staticmethod
    def _decide(state: JobState, each: DueJob, now: datetime) -> Decision:
        decision = _decided(state, each, now)
        # What another job's end made due is told one by one: the ledger must know each end that was dealt with.
        return decision if each.origin is Origin.SCHEDULE else one_by_one(decision, each.due)

    def _given_up(self, each: DueJob, why: str, now: datetime) -> Run:
        (passed,) = pass_all(each.due, Status.MISSED, why).passed
        return passed_run(passed, each, now, self.node)

    def _entries(self, state: JobState, each: DueJob, decision: Decision, now: datetime) -> list[DueEntry]:
        """Return the row of every part of a decision; their ids sort as their times do. Nothing is admitted yet."""
        ids_at = iter(now + place * MICROSECOND for place in range(len(decision.passed) + len(decision.start)))
        decided = each.before(decision.later[0].scheduled_at) if decision.later else each
        rows = [self.store.numbered(passed_run(one, each, next(ids_at), self.node)) for one in decision.passed]
        entries = [DueEntry(row, decided, one.gap.first) for row, one in zip(rows, decision.passed, strict=True)]
        for start in decision.start:
            is_catch_up = start.is_misfire and each.origin is Origin.SCHEDULE
            run = self.new_run(state.job, Origin.CATCH_UP if is_catch_up else each.origin, next(ids_at), start.scheduled_at)
            run = replace(run, details=details_of(state.job, start, each, now))
            entries.append(DueEntry(run, decided, start.scheduled_at, each.is_again))
        return entries

    def give_up(self, each: DueJob, why: str) -> None:
        """Enter into the ledger that something due will not be started any more."""
        run = self._given_up(each, why, self.clock.now())
        self.unwritten.settle(each)
        self._when_written(run, self.store.record([run]), partial(self.give_up, each, why))

    def new_run(self, job: Job, origin: Origin, now: datetime, scheduled_at: datetime | None) -> Run:
        """Return the row of a run that may start at once."""
        return self.store.numbered(new_run(job.job_id, origin, now, scheduled_at, self.node))

    # The ledger, and the launch behind it

    def record(self, rows: Sequence[Run], asks: bool = False) -> Future[frozenset[str]]:
        """Hand rows to the store; see `Recorder.record`."""
        return self._recorder.record(rows, asks)

    def when_recorded(self, rows: Sequence[Run], recorded: Future[frozenset[str]]) -> None:
        """Go on with rows when they are durable; see `Recorder.when_recorded`."""
        self._recorder.when_recorded(rows, recorded)

    def _taken(self, run: Run) -> None:
        if run.status is Status.RUNNING:
            self._launch_in_time(run)
        elif run.status is Status.QUEUED:
            self._waits(run)

    def _launch_in_time(self, run: Run) -> None:
        state, now = self.table.state_of(run), self.clock.now()
        why = why_too_late(state.job, run, now) if state is not None else None
        if why is None:
            self.launch(run)
        else:
            self._ends.write([(run, finish(run, Result(Status.MISSED, message=why), now, None))])

    def _when_written(self, run: Run, recorded: Future[frozenset[str]], again: Callable[[], None]) -> None:
        """Go on with a row; when it cannot be written, do all of it `again` when something can be."""
        self.when_recorded([run], recorded)
        recorded.add_done_callback(lambda done: self._later.append(again) if done.exception() is not None else None)

    def ended_at(self, job_id: str, at: datetime) -> None:
        """Tell who plans that a run of a job has ended, or will not be; its next time may be counted from there."""
        next_at = self._on_end(job_id, at)
        state = self.table.states.get(job_id)
        if next_at is not None and state is not None:
            with self.table.lock:
                state.next_run_at = next_at
                self.table.touch(state)

    def launch(self, run: Run) -> None:
        """Hand a run to the executor; one that cannot be handed over has failed, and must not hold up the next."""
        state = self.table.state_of(run)
        try:
            if state is None or self._launcher is None:
                raise StartError("its job is no longer in the configuration")
            self._launcher.launch(*within_deadline(state.job, run, self.clock.now()))
        except Exception as error:  # no thread to be had, say
            log.error("job %s: run %s could not be started: %s", run.job_id, run.run_id, error)
            self._ends.write([(run, finish(run, Result(Status.FAILED, message=str(error)), self.clock.now(), None))])
            return
        self._cancellation.supersede(state, run)

    def _do_later(self) -> None:
        """Do what could not be written down, when something can be."""
        for _ in range(len(self._later) if self.store.accepts_runs else 0):
            self._later.popleft()()

    # Those that wait

    def promote(self, state: JobState) -> None:
        """Let waiting runs start, of a job and of those it shares pools with, when there is room for them now."""
        if state.queued and state.job.only_if:
            self.run_queue.measure()
        with self.table.lock:
            chosen = [] if self.is_stopping else self.run_queue.next_of(state)
        self._claim(chosen)

    def promote_all(self, now: datetime) -> None:
        """Let every waiting run start for which it is time, and end those for which it is too late."""
        self.run_queue.measure()
        with self.table.lock:
            expired = [] if self.is_stopping else self.run_queue.expire(now)
            chosen = [] if self.is_stopping else self.run_queue.next_of_all()
        self._ends.write([(run, finish(run, result, now, None)) for run, result in expired])
        self._claim(chosen)

    def _promote_in_time(self, now: datetime) -> None:
        if self.run_queue.is_time(now):
            self.promote_all(now)

    def _claim(self, runs: Sequence[Run]) -> None:
        for run in runs:
            self.store.claim(run.run_id).add_done_callback(partial(self._claimed, run))

    def _claimed(self, run: Run, claimed: Future[bool]) -> None:
        if claimed.exception() is not None:
            self._wait_again(run)
        elif claimed.result():
            self.launch(run)
        else:
            log.warning("run %s of job %s was not queued any more: not started", run.run_id, run.job_id)
            self._recorder.forget(run)

    def _wait_again(self, run: Run) -> None:
        """Let a run wait on whose start cannot be written down; it is looked at again."""
        with self.table.lock:
            state = self.table.state_of(run)
            if state is None:
                return
            is_gone = self.table.states.get(run.job_id) is not state
            if is_gone:
                self.run_queue.leave(state, run.run_id)
            else:
                self.run_queue.wait_again(state, run, self.clock.now() + LOOK_AGAIN)
        if is_gone:
            self.cancel_queued([run], NO_JOB)

    def _waits(self, run: Run) -> None:
        """Deal with a run that waits, and is in the ledger now: what it waits for may have ended meanwhile."""
        self.replace_with(run)
        state = self.table.state_of(run)
        if state is not None:
            self.promote(state)

    def replace_with(self, run: Run) -> None:
        """Let a waiting run take the place of older ones, when that is the policy of its job."""
        state = self.table.state_of(run)
        if state is not None:
            self._cancellation.replace_with(state, run)

    def cancel(self, run_id: str, actor: str) -> Future[Run]:
        """Cancel a run, for somebody; see `Cancellation.cancel`."""
        return self._cancellation.cancel(run_id, actor)

    # Started, ended

    def may_start(self, run: Run) -> None:
        """Raise StoppingError when a run that is about to be started was ordered to end already."""
        with self.table.lock:
            self.stop_orders.refuse(run)

    def on_started(self, run: Run, started_at: datetime) -> Run:
        """Note when a run was started; its row follows when it ends."""
        run = replace(run, started_at=started_at)
        with self.table.lock:
            state = self.table.state_of(run)
            if state is not None and run.run_id in state.running:
                state.running[run.run_id] = run
                self.table.touch(state)
            if self.is_stopping:
                self._went_idle.notify_all()
        return run

    def on_unkilled(self, run: Run, who: str) -> None:
        """Note what of a run could not be killed, while it lives on."""
        with self.table.lock:
            state = self.table.state_of(run)
            if state is not None and run.run_id in state.running:
                known = state.running[run.run_id]
                state.running[run.run_id] = replace(known, details={**known.details, "not_killed": who})
                self.table.touch(state)

    def on_finished(self, ends: list[Finished]) -> None:
        """Write how runs ended, make room for what waits, and then tell who waits for them."""
        self._ends.write([self._ends.finished(each.run, each.result, each.ended_at, each.duration_seconds) for each in ends])

    def cancel_queued(self, runs: Sequence[Run], why: str) -> None:
        """End runs that wait and will never have their turn."""
        self._ends.cancel(runs, Result(Status.CANCELLED, message=why))

    def _over(self, state: JobState, run: Run) -> None:
        """Plan on from the end of a job's run, when its next time is counted from there."""
        if state.job.trigger is not None and state.job.trigger.waits_for_end and not state.running:
            self.ended_at(run.job_id, run.finished_at or self.clock.now())

    def catch_up_pause(self, job_id: str, skipped: Run) -> None:
        """Run now, once, what a pause skipped: a second attempt of the newest occurrence that it skipped."""
        with self.table.lock:
            state = self.table.get(job_id)
            run = self.new_run(state.job, Origin.CATCH_UP, self.clock.now(), skipped.scheduled_at)
            run = self.run_queue.admitted(state, replace(run, attempt=skipped.attempt + 1))
            recorded = self.record([run])
        self._when_written(run, recorded, partial(self.catch_up_pause, job_id, skipped))

    # The end

    def stop(self) -> None:
        """Start nothing more; what runs goes on. Who waits for a run that waits itself is told that it still does."""
        with self.table.lock:
            self.is_stopping = self._ends.is_stopping = True
            waiting = [run for state in self.table.states.values() for run in state.queued or ()]
        self.waiters.tell(waiting)

    def wait_until_idle(self, seconds: float, counts: Callable[[Run], bool] = lambda _run: True) -> bool:
        """Return True as soon as nothing runs that counts, False when something still does after `seconds`."""
        with self._went_idle:
            return self._went_idle.wait_for(lambda: not any(map(counts, self.table.running())), seconds)


def _decided(state: JobState, each: DueJob, now: datetime) -> Decision:
    if not still_starts(state.job, each.origin):
        return pass_all(each.due, Status.MISSED, CHANGED)
    if state.pause is not None and not pause_is_over(state.pause.until, now):
        return pass_all(each.due, Status.SKIPPED, PAUSED)
    return decide_held(state.job, each.due, now) if each.is_held else decide_due(state.job, each.due, now)
