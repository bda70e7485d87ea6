"""Dispatch: passes recorded runs to the launcher, and promotes queued runs when they may start."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial

from ..core.clock import Clock
from ..core.errors import StartError
from ..core.misfires import why_too_late
from ..core.models import Result, Run, Status
from ..core.retries import within_deadline
from ..store.protocol import Store
from .cancellation import Cancellation
from .completion import NO_JOB, Completion
from .due import CHECK_AGAIN
from .launcher import Launcher, RunListener
from .run_queue import RunQueue
from .state import JobState, JobTable

log = logging.getLogger(__name__)


class Dispatcher:
    """Launches runs whose rows are durable."""

    def __init__(
        self,
        table: JobTable,
        store: Store,
        clock: Clock,
        run_queue: RunQueue,
        completion: Completion,
        cancellation: Cancellation,
        launcher: Launcher,
        listener: RunListener,
    ) -> None:
        self._table, self._store, self._clock, self._run_queue = table, store, clock, run_queue
        self._completion, self._cancellation = completion, cancellation
        self._launcher, self._listener = launcher, listener

    def accept(self, run: Run) -> None:
        """Continue with a run whose row is durable: launch it, or queue it."""
        if run.status is Status.RUNNING:
            self._launch_in_time(run)
        elif run.status is Status.QUEUED:
            self.replace_with(run)
            state = self._table.state_of(run)
            if state is not None:
                self.promote(state)  # the run that it waits for may have ended meanwhile

    def _launch_in_time(self, run: Run) -> None:
        state, now = self._table.state_of(run), self._clock.now()
        why = why_too_late(state.job, run, now) if state is not None else None
        if why is None:
            self.launch(run)
        else:
            self._completion.end_unstarted([(run, Result(Status.MISSED, message=why))])

    def launch(self, run: Run) -> None:
        """Pass a run to the launcher. A run that the launcher cannot accept fails, and does not delay others."""
        state = self._table.state_of(run)
        try:
            if state is None:
                raise StartError(NO_JOB)
            self._launcher.launch(*within_deadline(state.job, run, self._clock.now()), self._listener)
        except Exception as error:  # for example, no thread can be started
            log.error("job %s: run %s could not be started: %s", run.job_id, run.run_id, error)
            self._completion.end_unstarted([(run, Result(Status.FAILED, message=str(error)))])
            return
        self._cancellation.supersede(state, run)

    def replace_with(self, run: Run) -> None:
        """Replace older runs by a queued run, when that is the policy of its job."""
        state = self._table.state_of(run)
        if state is not None:
            self._cancellation.replace_with(state, run)

    def release(self, run: Run) -> None:
        """Stop counting a run that is not in the ledger, and release its slots to others."""
        with self._table.lock:
            state = self._table.state_of(run)
            if state is None:
                return
            self._run_queue.leave(state, run.run_id)
        self.promote(state)

    # Queued runs

    def promote(self, state: JobState) -> None:
        """Start queued runs that may start now, of a job and of those that share pools with it."""
        if state.queued and state.job.only_if:
            self._run_queue.measure()
        with self._table.lock:
            chosen = [] if self._table.is_stopping else self._run_queue.next_of(state)
        self._claim(chosen)

    def promote_all(self) -> None:
        """Start all queued runs that may start now, and end those that have expired."""
        now = self._clock.now()
        self._run_queue.measure()
        with self._table.lock:
            expired = [] if self._table.is_stopping else self._run_queue.expire(now)
            chosen = [] if self._table.is_stopping else self._run_queue.next_of_all()
        self._completion.end_unstarted(expired)
        self._claim(chosen)

    def _claim(self, runs: Sequence[Run]) -> None:
        for run in runs:
            self._store.claim(run.run_id).add_done_callback(partial(self._claimed, run))

    def _claimed(self, run: Run, claimed: Future[bool]) -> None:
        if claimed.exception() is not None:
            self._wait_again(run)
        elif claimed.result():
            self.launch(run)
        else:
            log.warning("job %s: run %s is no longer queued: not started", run.job_id, run.run_id)
            self.release(run)

    def _wait_again(self, run: Run) -> None:
        """Return a run to the queue when its start cannot be recorded."""
        with self._table.lock:
            state = self._table.state_of(run)
            if state is None:
                return
            is_gone = self._table.states.get(run.job_id) is not state
            if is_gone:
                self._run_queue.leave(state, run.run_id)
            else:
                self._run_queue.wait_again(state, run, self._clock.now() + CHECK_AGAIN)
        if is_gone:
            self._completion.end_unstarted([(run, Result(Status.CANCELLED, message=NO_JOB))])
