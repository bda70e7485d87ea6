"""What the daemon does about runs that an earlier daemon left unfinished, before it plans anything."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from .board import Board
from .clock import Clock
from .ends import next_row
from .model import Job, Result, Run, Status, finish
from .roster import GONE
from .scheduler import Scheduler
from .store import Store, durable

log = logging.getLogger(__name__)

ABANDONED = "the daemon ended while it ran, and its end was not seen"


def close_open_runs(store: Store, clock: Clock, configured: Mapping[str, Job]) -> list[Run]:
    """Finish what cannot go on: runs that were running, and waiting runs of jobs that are gone.

    Returns the waiting runs that can still start, oldest first. Durable when it returns.
    """
    ended: list[Run] = []
    waiting: list[Run] = []
    retries: list[Run] = []
    for run in store.unfinished():
        if run.status is Status.RUNNING:
            over, retry = finish(run, Result(Status.ABANDONED, message=ABANDONED), clock.now(), None), None
            if run.job_id in configured:
                over, retry = next_row(configured[run.job_id], run, over, clock.now())
            ended.append(over)
            retries += [retry] if retry is not None else []
            log.warning("job %s: run %s is abandoned: %s", run.job_id, run.run_id, ABANDONED)
        elif run.job_id in configured:
            waiting.append(run)
        else:
            ended.append(finish(run, Result(Status.CANCELLED, message=GONE), clock.now(), None))
    if ended:
        durable(store.finish(ended, retries))
    return waiting + retries


def queue_again(board: Board, scheduler: Scheduler, waiting: list[Run]) -> None:
    """Put waiting runs back into the queues of their jobs, and let those start that may."""
    for run in waiting:
        with board.lock:
            scheduler.seating.wait(board.get(run.job_id), run)
    with board.lock:
        scheduler.seating.recount()
    scheduler.promote_all(scheduler.clock.now())
