"""Runs that somebody asks for: started now, awaited when wanted, and once per idempotency key."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..core.errors import SchedulerdError, StoppingError, StoreError
from ..core.models import Actor, Origin, Run, Status
from ..core.params import check_params
from ..core.retries import is_followed
from .lookup import run_of
from .scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class ManualRun:
    """A run that was asked for: `recorded` is it as the ledger has it, `done` it when it has ended."""

    recorded: Future[Run]
    done: Future[Run]


class ManualRuns:
    """Takes wishes for runs to the scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._table = scheduler.table
        self._store = scheduler.store
        self._waiters = scheduler.waiters

    def trigger(self, job_id: str, actor: Actor, key: str | None = None, params: Any = None) -> ManualRun:
        """Run a job now, because somebody asks. With an idempotency key, a repeat gets the first run.

        The values of its parameters are kept in the run's details. Raise NotFoundError for an unknown job, InvalidError
        for `params` that it does not take, StoppingError when the daemon is stopping.
        """
        asked = ManualRun(Future(), Future())
        first = self._store.run_by_key(job_id, key) if key is not None else None
        if first is not None:
            self._answer_with(asked, first)
            return asked
        values = check_params(self._table.get(job_id).job.params, params)  # outside of the lock: it may take a moment
        with self._table.lock:
            state = self._table.get(job_id)
            if self._scheduler.is_stopping:
                raise StoppingError("the daemon is stopping: ask again when it is back")
            trouble = self._store.trouble
            if trouble is not None and (key is not None or not self._store.accepts_runs):
                by_key = " with an idempotency key" if key is not None else ""  # its first run may be in the history
                raise StoreError(f"nothing can be started now{by_key}, the store cannot be written: {trouble}")
            run = replace(
                self._scheduler.new_run(state.job, Origin.MANUAL, self._scheduler.clock.now(), None),
                actor=actor.name,
                idempotency_key=key,
                details={"params": values} if values else {},
            )
            run = self._scheduler.run_queue.admitted(state, run)
            if run.status is not Status.SKIPPED:
                self._waiters.add(run.run_id, asked.done)
            recorded = self._scheduler.record([run], asks=key is not None)
        recorded.add_done_callback(partial(self._answer, asked, run))
        self._scheduler.when_recorded([run], recorded)
        return asked

    def watch(self, run: Run) -> Future[Run]:
        """Return what is done when a run, which the ledger has, has ended, whatever follows it; at once when it has."""
        done: Future[Run] = Future()
        if not self._waits_for(run, done, follows=False):
            done.set_result(self._store.run(run.run_id) or run)
        return done

    def _answer(self, asked: ManualRun, run: Run, recorded: Future[frozenset[str]]) -> None:
        try:
            if run.run_id in recorded.result():
                asked.recorded.set_result(run)
                if run.status is Status.SKIPPED:
                    asked.done.set_result(run)
                return
            # Somebody asked with this idempotency key a moment ago: their run is the answer.
            self._waiters.drop(run.run_id)
            first = self._store.run_by_key(run.job_id, run.idempotency_key or "")
            if first is None:
                raise StoreError("the run with this idempotency key is gone: ask with a new key")
            self._answer_with(asked, first)
        except SchedulerdError as error:
            self._waiters.drop(run.run_id)
            for future in (asked.recorded, asked.done):
                if not future.done():
                    future.set_exception(error)

    def _answer_with(self, asked: ManualRun, first: Run) -> None:
        """Let who asked wait for a run that is there already, or for the last attempt after it."""
        ended: Run | None = first
        while ended is not None and not self._waits_for(ended, asked.done):
            ended = run_of(self._table, self._store, ended.run_id) or ended
            following = run_of(self._table, self._store, ended.details["retry"]) if is_followed(ended.details) else None
            if following is None:
                break
            ended = following
        else:
            ended = None
        asked.recorded.set_result(first)
        if ended is not None and not asked.done.done():
            asked.done.set_result(ended)

    def _waits_for(self, run: Run, done: Future[Run], follows: bool = True) -> bool:
        """Let a future wait for a run if it is open, and return whether it is."""
        with self._table.lock:  # to choose; the store is read outside
            state = self._table.state_of(run)
            waits = state is not None and any(each.run_id == run.run_id for each in state.queued or ())
            is_open = state is not None and (waits or run.run_id in state.running)
            if is_open:
                self._waiters.add(run.run_id, done, follows)
        return is_open
