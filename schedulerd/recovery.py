"""What the daemon does about runs that an earlier daemon left unfinished, before it plans anything."""

from __future__ import annotations

import logging
from collections import deque

from .board import Board
from .clock import Clock
from .model import Result, Run, Status, finish
from .roster import GONE
from .scheduler import Scheduler
from .store import Store, durable

log = logging.getLogger(__name__)

ABANDONED = "the daemon ended while it ran, and its end was not seen"


def close_open_runs(store: Store, clock: Clock, configured: set[str]) -> list[Run]:
    """Finish what cannot go on: runs that were running, and waiting runs of jobs that are gone.

    Returns the waiting runs that can still start, oldest first. Durable when it returns.
    """
    ended, waiting = [], []
    for run in store.unfinished():
        if run.status is Status.RUNNING:
            ended.append(finish(run, Result(Status.ABANDONED, message=ABANDONED), clock.now(), None))
            log.warning("job %s: run %s is abandoned: %s", run.job_id, run.run_id, ABANDONED)
        elif run.job_id in configured:
            waiting.append(run)
        else:
            ended.append(finish(run, Result(Status.CANCELLED, message=GONE), clock.now(), None))
    if ended:
        durable(store.finish(ended))
    return waiting


def queue_again(board: Board, scheduler: Scheduler, waiting: list[Run]) -> None:
    """Put waiting runs back into the queues of their jobs, and let the first of each start."""
    for run in waiting:
        with board.lock:
            state = board.get(run.job_id)
            state.queued = state.queued or deque()
            state.queued.append(run)
            board.touch(state)
    for job_id in {run.job_id for run in waiting}:
        scheduler.promote(board.states[job_id])
