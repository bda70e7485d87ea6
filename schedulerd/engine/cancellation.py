"""Cancels queued and running runs: at the request of a caller, or because a newer run replaces or supersedes them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import takewhile

from ..core.errors import NotFoundError
from ..core.models import Origin, Overlap, Result, Run, Status
from ..core.retries import is_superseded
from ..process.spec import Cause
from ..store.protocol import Store
from .completion import Completion
from .run_queue import RunQueue
from .state import JobState, JobTable, run_of
from .stop_orders import StopOrders


class Cancellation:
    """Removes queued runs from their queues, and ends running ones."""

    def __init__(
        self, table: JobTable, store: Store, run_queue: RunQueue, completion: Completion, stop_orders: StopOrders
    ) -> None:
        self._table, self._store = table, store
        self._run_queue, self._completion, self._stop_orders = run_queue, completion, stop_orders

    def cancel(self, run_id: str, actor: str) -> Future[Run]:
        """Cancel a queued run, or order a running one to end. Return the run in its new state.

        A queued run is then `cancelled`, durably. A running run is still `running`; its end follows. A run that has ended
        does not change: an attempt that follows it (`details.retry`) is a separate run. Raise NotFoundError when no such
        run exists.
        """
        done: Future[Run] = Future()
        running, waiting = self._found(run_id)
        if running is not None:
            self._stop_orders.order(running, Cause.CANCEL, f"cancelled by {actor}")
            done.set_result(running)
        elif waiting is not None:
            result = Result(Status.CANCELLED, message=f"cancelled by {actor}", details={"cancelled_by": actor})
            written = self._completion.end_unstarted([(waiting, result)])
            assert written is not None  # noqa: S101 - there is one
            written.add_done_callback(partial(self._answer, done, waiting))
        elif (row := run_of(self._table, self._store, run_id)) is not None:  # it may have ended a moment ago
            done.set_result(row)
        else:
            raise NotFoundError(f"there is no run {run_id!r}")
        return done

    def _found(self, run_id: str) -> tuple[Run | None, Run | None]:
        """Return the run if it is running, and if it is queued, after removing it from its queue."""
        with self._table.lock:
            state = self._table.holding(run_id)
            if state is None:
                return None, None
            if run_id in state.running:
                return state.running[run_id], None
            return None, self._run_queue.unqueue(state, {run_id})[0]

    def _answer(self, done: Future[Run], waiting: Run, written: Future[frozenset[str]]) -> None:
        try:
            written.result()
            row = run_of(self._table, self._store, waiting.run_id)
            done.set_result(row or replace(waiting, status=Status.CANCELLED))
        except Exception as error:  # the caller receives it
            done.set_exception(error)

    def replace_with(self, state: JobState, run: Run) -> None:
        """End older runs of a job, running and queued, when its policy is `overlap: replace`."""
        if state.job.overlap is not Overlap.REPLACE or run.origin is Origin.RETRY:
            return
        with self._table.lock:
            queued = [each for each in state.queued or () if each.origin is not Origin.RETRY]
            if all(each.run_id != run.run_id for each in queued):
                return  # it is cancelled already, or has started
            running = list(state.running.values())
            older = list(takewhile(lambda each: each.run_id != run.run_id, queued))
        for each in running:
            self._stop_orders.order(each, Cause.REPLACE, f"replaced by run {run.run_id}")
        self._drop(state, older, f"replaced by run {run.run_id}")

    def supersede(self, state: JobState, started: Run) -> None:
        """Cancel the queued retries of a job that a later occurrence supersedes."""
        if not state.queued:
            return
        with self._table.lock:
            needless = [each for each in state.queued if is_superseded(each, started)]
        self._drop(state, needless, f"superseded by the next occurrence, run {started.run_id}")

    def _drop(self, state: JobState, runs: Sequence[Run], why: str) -> None:
        with self._table.lock:  # some may have started meanwhile
            runs = self._run_queue.unqueue(state, {run.run_id for run in runs})
        self._completion.end_unstarted([(run, Result(Status.CANCELLED, message=why)) for run in runs])
