"""Pauses of jobs: callers set and end them, or they expire. In memory at once, durable when the future is done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from functools import partial

from ..core.misfires import pause_is_over
from ..core.models import Pause
from ..store.protocol import Store
from .state import JobState, JobTable

log = logging.getLogger(__name__)


class Pauses:
    """Sets and ends pauses; `on_resumed(state)` starts the queued runs that a pause has delayed."""

    def __init__(self, table: JobTable, store: Store, on_resumed: Callable[[JobState], None]) -> None:
        self._table = table
        self._store = store
        self._on_resumed = on_resumed
        self._timed: dict[str, datetime] = {}  # the expiry, for the few jobs that have a pause with one

    def set(self, job_id: str, pause: Pause | None) -> Future[None]:
        """Pause a job, or resume it (None). The future is done when this is durable.

        A change that the store refuses is undone. Raise NotFoundError when no such job exists.
        """
        with self._table.lock:
            state = self._table.get(job_id)
            before, state.pause = state.pause, pause
            self.watch(state)
            self._table.touch(state)
            done = self._store.set_pause(job_id, pause)
        done.add_done_callback(partial(self._is_set, state, before, pause))
        return done

    def watch(self, state: JobState) -> None:
        """Note when the pause of a job expires. The table's lock is held."""
        self._timed.pop(state.job.job_id, None)
        if state.pause is not None and state.pause.until is not None:
            self._timed[state.job.job_id] = state.pause.until

    def end_those_over(self, now: datetime) -> None:
        """Resume the jobs whose pauses have expired."""
        if not self._timed:
            return
        for job_id in [job_id for job_id, until in list(self._timed.items()) if pause_is_over(until, now)]:
            with self._table.lock:  # another pause may have been set just now
                self._timed.pop(job_id, None)
                state = self._table.states.get(job_id)
                if state is not None and state.pause is not None and pause_is_over(state.pause.until, now):
                    self.set(job_id, None).add_done_callback(partial(_log_end, job_id))

    def _is_set(self, state: JobState, before: Pause | None, pause: Pause | None, done: Future[None]) -> None:
        if done.exception() is None:
            if pause is None:
                self._on_resumed(state)
            return
        with self._table.lock:
            if state.pause is pause:
                state.pause = before
                self.watch(state)
                self._table.touch(state)


def _log_end(job_id: str, done: Future[None]) -> None:
    """Log that a pause has expired, once that is recorded."""
    if done.exception() is None:
        log.info("job %s: its pause has expired", job_id)
