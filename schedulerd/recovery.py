"""What the daemon does about runs that an earlier daemon left unfinished, before it plans anything."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from datetime import datetime

from .board import Board, JobState
from .clock import Clock
from .ends import next_row
from .model import Job, Result, Run, Status, finish
from .roster import GONE
from .scheduler import Scheduler
from .store import Store, durable

log = logging.getLogger(__name__)

NEVER_STARTED = "the daemon ended when it was about to start it: it was never started"
BUILT_IN = "the daemon ended while it ran, and it ran in the daemon"


@dataclass(frozen=True, slots=True)
class Open:
    """The runs that an earlier daemon left unfinished and that go on: those that wait, and those a keeper knows."""

    waiting: list[Run]
    running: list[Run]


def close_open_runs(
    store: Store, clock: Clock, configured: Mapping[str, Job], known: Mapping[str, datetime | None], builtin: Set[str]
) -> Open:
    """Finish what cannot go on: running rows that no keeper knows, and waiting runs of jobs that are gone.

    `known` are the runs that keepers know, with when they were started; `builtin` are the jobs whose action runs in the
    daemon. Returns the others, oldest first. Durable when it returns.
    """
    ended: list[Run] = []
    retries: list[Run] = []
    still = Open([], [])
    for run in store.unfinished():
        if run.run_id in known:
            still.running.append(replace(run, status=Status.RUNNING, started_at=known[run.run_id]))
        elif run.status is Status.RUNNING:
            why = BUILT_IN if run.job_id in builtin else NEVER_STARTED
            over, retry = finish(run, Result(Status.ABANDONED, message=why), clock.now(), None), None
            if run.job_id in configured:
                over, retry = next_row(configured[run.job_id], run, over, clock.now())
            ended.append(over)
            retries += [retry] if retry is not None else []
            log.warning("job %s: run %s is abandoned: %s", run.job_id, run.run_id, why)
        elif run.job_id in configured:
            still.waiting.append(run)
        else:
            ended.append(finish(run, Result(Status.CANCELLED, message=GONE), clock.now(), None))
    if ended:
        durable(store.finish(ended, retries))
    return Open(still.waiting + retries, still.running)


def watch_again(
    board: Board, running: list[Run], retired: Callable[[str], Job | None], adopt: Callable[[Job, Run], None]
) -> None:
    """Count runs whose children live on, or have ended meanwhile, as running again; `adopt` hears of their ends.

    `retired` returns what is remembered of a job that was taken out of the configuration.
    """
    for run in running:
        with board.lock:
            state = board.states.get(run.job_id)
            if state is None:
                job = retired(run.job_id) or Job(run.job_id, run.job_id, "command", {})
                state = board.retired.setdefault(run.job_id, JobState(job))
            state.running[run.run_id] = run
            board.touch(state)
        adopt(state.job, run)
        log.info("job %s: run %s is watched again", run.job_id, run.run_id)


def queue_again(board: Board, scheduler: Scheduler, waiting: list[Run]) -> None:
    """Put waiting runs back into the queues of their jobs, replace what they replace, and let those start that may."""
    for run in waiting:
        with board.lock:
            scheduler.seating.wait(board.get(run.job_id), run)
    with board.lock:
        scheduler.seating.recount()
    for run in waiting:
        scheduler.replace_with(run)  # the daemon may have died before it gave the order, or the order may be lost
    scheduler.promote_all(scheduler.clock.now())
