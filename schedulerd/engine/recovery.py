"""What the daemon does about runs that an earlier daemon left unfinished, before it plans anything.

| the row is | and                                     | it                                                           |
|------------|-----------------------------------------|--------------------------------------------------------------|
| running    | a keeper knows it                       | is watched until its end, or finished as the keeper noted     |
| running    | its child was provably never started    | is started now, when `policy.why_left_unstarted` has no reason |
| running    | nothing is known of it                  | is abandoned                                                 |
| queued     | its job is still there                  | waits again                                                  |
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime

from ..core.clock import Clock
from ..core.concurrency import max_running
from ..core.misfires import pause_is_over, why_left_unstarted
from ..core.models import Job, JobRecord, Origin, Result, Run, Status, finish
from ..core.retries import rebased
from ..process.spec import WHO, KnownRun
from ..store.outage_spool import RECORDED_BEFORE
from ..store.protocol import Store, durable
from .completion import next_row
from .reload import GONE, rule_of
from .scheduler import Scheduler
from .state import JobState, JobTable

log = logging.getLogger(__name__)

NEVER_STARTED = "the daemon ended when it was about to start it: it was never started"
NOT_KNOWN = "the daemon ended, and whether it was started is not known: {}"
STARTED_LATE = "the daemon ended when it was about to start it: it is started now, by the next daemon"
BUILT_IN = "the daemon ended while it ran, and it ran in the daemon"
NOT_THERE = "it was entered again from what its keeper knows of it, because it was not in the history that the daemon found"


@dataclass(frozen=True, slots=True)
class Open:
    """The runs that an earlier daemon left unfinished and that go on, oldest first.

    `waiting` wait for their turn, `running` are known to a keeper, `unstarted` are recorded as running, were never started,
    and are to be started now.
    """

    waiting: list[Run]
    running: list[Run]
    unstarted: list[Run]


def close_open_runs(
    store: Store,
    clock: Clock,
    configured: Mapping[str, Job],
    known: Mapping[str, KnownRun],
    builtin: AbstractSet[str],
    doubt_of: Callable[[str], str | None],
) -> Open:
    """Finish what cannot go on: running rows that no keeper knows, and waiting runs of jobs that are gone.

    `known` are the runs that keepers know, of which those that are not in the ledger are entered; `builtin` are the jobs
    whose action runs in the daemon. `doubt_of` says of a run that no keeper knows why its child may have been started all
    the same, None when it provably was not. Durable when it returns.
    """
    _enter_missing(store, clock, known)
    ended: list[Run] = []
    retries: list[Run] = []
    still = Open([], [], [])
    records = store.jobs()
    for run in store.unfinished():
        job = configured.get(run.job_id)
        if run.run_id in known:
            still.running.append(replace(run, status=Status.RUNNING, started_at=known[run.run_id].started_at))
        elif run.status is Status.RUNNING:
            why = BUILT_IN if run.job_id in builtin else _why_unknown(doubt_of(run.run_id))
            left = _why_left(job, run, records.get(run.job_id), still, clock.now()) if why == NEVER_STARTED else ""
            if left is None:
                still.unstarted.append(replace(run, details={**run.details, "cause": STARTED_LATE}))
                continue
            over, retry = _abandoned(job, run, f"{why}; not started now: {left}" if left else why, clock.now())
            ended.append(over)
            retries += [store.numbered(retry)] if retry is not None else []
        elif job is not None:
            still.waiting.append(rebased(run, clock.now()))
        else:
            ended.append(finish(run, Result(Status.CANCELLED, message=GONE), clock.now(), None))
    if ended:
        durable(store.finish(ended, retries))
    return replace(still, waiting=still.waiting + retries)


def _why_unknown(doubt: str | None) -> str:
    return NEVER_STARTED if doubt is None else NOT_KNOWN.format(doubt)


def _why_left(job: Job | None, run: Run, record: JobRecord | None, still: Open, now: datetime) -> str | None:
    """Return why a run that was never started is not started now, or None when it is."""
    if job is None:
        return GONE
    if run.details.get("reason") == RECORDED_BEFORE:
        return "another run stands for its occurrence"
    most = max_running(job)
    beside = sum(each.job_id == run.job_id for each in (*still.running, *still.unstarted))
    if most is not None and beside >= most:
        return "another run of the job still runs"
    pause = record.pause if record is not None else None
    is_paused = pause is not None and not pause_is_over(pause.until, now)
    return why_left_unstarted(job, run, is_paused, record is None or record.rule != rule_of(job), now)


def _abandoned(job: Job | None, run: Run, why: str, now: datetime) -> tuple[Run, Run | None]:
    """Return a run that cannot go on as it ended, and the row of the attempt that follows it if there is one."""
    log.warning("job %s: run %s is abandoned: %s", run.job_id, run.run_id, why)
    over = finish(run, Result(Status.ABANDONED, message=why), now, None)
    return next_row(job, run, over, now) if job is not None else (over, None)


def _enter_missing(store: Store, clock: Clock, known: Mapping[str, KnownRun]) -> None:
    """Enter the runs that keepers know and the ledger does not: another one was put in its place, or begun."""
    there = store.statuses(list(known)) if known else {}
    found = [_row_of(run_id, kept, clock.now()) for run_id, kept in known.items() if run_id not in there]
    runs = [run for run in found if run is not None]
    if not runs:
        return
    taken = durable(store.record(runs))
    durable(store.record([replace(run, scheduled_at=None) for run in runs if run.run_id not in taken]))
    for run in runs:
        log.warning("job %s: run %s was not in the history: %s", run.job_id, run.run_id, NOT_THERE)


def _row_of(run_id: str, kept: KnownRun, now: datetime) -> Run | None:
    """Return a run as its keeper knows it; None when that cannot tell whose it is."""
    job_id, attempt, origin, at = map(kept.who.get, WHO)
    if job_id is None or attempt is None or origin is None:
        log.error("run %s is not in the history, and its keeper cannot tell of which job it is: it goes on unseen", run_id)
        return None
    scheduled_at = datetime.fromisoformat(at) if at is not None else None
    return Run(
        run_id, job_id, Origin(origin), Status.RUNNING, kept.started_at or now, scheduled_at, int(attempt), kept.started_at,
        details={"reason": NOT_THERE}, node=socket.gethostname(),
    )  # fmt: skip


def watch_again(
    table: JobTable, running: list[Run], retired: Callable[[str], Job | None], adopt: Callable[[Job, Run], None]
) -> None:
    """Count runs whose children live on, or have ended meanwhile, as running again; `adopt` hears of their ends.

    `retired` returns what is remembered of a job that was taken out of the configuration.
    """
    for run in running:
        with table.lock:
            state = table.states.get(run.job_id)
            if state is None:
                job = retired(run.job_id) or Job(run.job_id, run.job_id, "command", {})
                state = table.retired.setdefault(run.job_id, JobState(job))
            state.running[run.run_id] = run
            table.touch(state)
        adopt(state.job, run)
        log.info("job %s: run %s is watched again", run.job_id, run.run_id)


def start_unstarted(table: JobTable, scheduler: Scheduler, unstarted: list[Run]) -> None:
    """Start runs that are recorded as running and were never started. Their rows are durable already."""
    for run in unstarted:
        with table.lock:
            scheduler.run_queue.enter(table.get(run.job_id), run)
        log.warning("job %s: run %s: %s", run.job_id, run.run_id, STARTED_LATE)
        scheduler.launch(run)


def queue_again(table: JobTable, scheduler: Scheduler, waiting: list[Run]) -> None:
    """Put waiting runs back into the queues of their jobs, replace what they replace, and let those start that may."""
    for run in waiting:
        with table.lock:
            scheduler.run_queue.wait(table.get(run.job_id), run)
    with table.lock:
        scheduler.run_queue.recount()
    for run in waiting:
        scheduler.replace_with(run)  # the daemon may have died before it gave the order, or the order may be lost
    scheduler.promote_all(scheduler.clock.now())
