"""Manual runs: requested by a caller, which may wait for the end. An idempotency key starts at most one."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..core.clock import Clock
from ..core.errors import SchedulerdError, StoppingError, StoreError
from ..core.models import Actor, Origin, Run, Status
from ..core.params import check_params
from ..core.retries import is_followed
from ..store.protocol import Store
from .completion import Waiters
from .due import new_run
from .recording import Recorder
from .run_queue import RunQueue
from .state import JobTable, run_of


@dataclass(frozen=True, slots=True)
class ManualRun:
    """A requested run. `recorded` is done when the ledger has it, `done` when it has ended."""

    recorded: Future[Run]
    done: Future[Run]


class ManualRuns:
    """Starts runs at the request of callers."""

    def __init__(
        self,
        table: JobTable,
        store: Store,
        clock: Clock,
        node: str,
        run_queue: RunQueue,
        recorder: Recorder,
        waiters: Waiters,
    ) -> None:
        self._table, self._store, self._clock, self._node = table, store, clock, node
        self._run_queue, self._recorder, self._waiters = run_queue, recorder, waiters

    def trigger(self, job_id: str, actor: Actor, key: str | None = None, params: Any = None) -> ManualRun:
        """Run a job now. A repeated request with the same idempotency key returns the first run.

        The values of the parameters are stored in the details of the run. Raise NotFoundError for an unknown job,
        InvalidError for `params` that it does not accept, StoppingError when the daemon is stopping, and StoreError when
        the run cannot be recorded.
        """
        requested = ManualRun(Future(), Future())
        first = self._store.run_by_key(job_id, key) if key is not None else None
        if first is not None:
            self._answer_with(requested, first)
            return requested
        values = check_params(self._table.get(job_id).job.params, params)  # without the lock, because this may be slow
        with self._table.lock:
            state = self._table.get(job_id)
            if self._table.is_stopping:
                raise StoppingError("the daemon is stopping; try again after its restart")
            trouble = self._store.trouble
            if trouble is not None and (key is not None or not self._store.accepts_runs):
                by_key = " with an idempotency key" if key is not None else ""  # its first run may be in the history
                raise StoreError(f"no run can be started now{by_key}: the store cannot be written: {trouble}")
            run = replace(
                self._store.numbered(new_run(job_id, Origin.MANUAL, self._clock.now(), None, self._node)),
                actor=actor.name,
                idempotency_key=key,
                details={"params": values} if values else {},
            )
            run = self._run_queue.admitted(state, run)
            if run.status is not Status.SKIPPED:
                self._waiters.add(run.run_id, requested.done)
            recorded = self._recorder.record([run], asks=key is not None)
        recorded.add_done_callback(partial(self._answer, requested, run))
        self._recorder.when_recorded([run], recorded)
        return requested

    def watch(self, run: Run) -> Future[Run]:
        """Return a future that is done when a recorded run has ended, whether a retry follows it or not."""
        done: Future[Run] = Future()
        if not self._waits_for(run, done, follows=False):
            done.set_result(self._store.run(run.run_id) or run)
        return done

    def _answer(self, requested: ManualRun, run: Run, recorded: Future[frozenset[str]]) -> None:
        try:
            if run.run_id in recorded.result():
                requested.recorded.set_result(run)
                if run.status is Status.SKIPPED:
                    requested.done.set_result(run)
                return
            # Another request with this idempotency key was faster: its run is the result.
            self._waiters.drop(run.run_id)
            first = self._store.run_by_key(run.job_id, run.idempotency_key or "")
            if first is None:
                raise StoreError("the run with this idempotency key was deleted; use a new key")
            self._answer_with(requested, first)
        except SchedulerdError as error:
            self._waiters.drop(run.run_id)
            for future in (requested.recorded, requested.done):
                if not future.done():
                    future.set_exception(error)

    def _answer_with(self, requested: ManualRun, first: Run) -> None:
        """Complete a request with an earlier run. The caller waits for its end, or for that of the last attempt after it."""
        ended: Run | None = first
        while ended is not None and not self._waits_for(ended, requested.done):
            ended = run_of(self._table, self._store, ended.run_id) or ended
            following = run_of(self._table, self._store, ended.details["retry"]) if is_followed(ended.details) else None
            if following is None:
                break
            ended = following
        else:
            ended = None
        requested.recorded.set_result(first)
        if ended is not None and not requested.done.done():
            requested.done.set_result(ended)

    def _waits_for(self, run: Run, done: Future[Run], follows: bool = True) -> bool:
        """Let a future wait for a run if the run is running or queued. Return whether it is."""
        with self._table.lock:  # held for this decision only; the store is read without it
            state = self._table.state_of(run)
            waits = state is not None and any(each.run_id == run.run_id for each in state.queued or ())
            is_open = state is not None and (waits or run.run_id in state.running)
            if is_open:
                self._waiters.add(run.run_id, done, follows)
        return is_open
