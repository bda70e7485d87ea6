"""Recovery of runs that an earlier daemon left unfinished, before any job is planned.

| the row is | and                                     | it                                                           |
|------------|-----------------------------------------|--------------------------------------------------------------|
| running    | a keeper knows it                       | is supervised until its end, or has the end in its journal   |
| running    | its child was provably never started    | is started now, unless `why_left_unstarted` has a reason     |
| running    | no keeper knows it                      | is abandoned                                                 |
| queued     | its job is still configured             | is queued again                                              |
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
from .dispatch import Dispatcher
from .launcher import Launcher, RunListener
from .reload import GONE, rule_of
from .run_queue import RunQueue
from .state import JobState, JobTable

log = logging.getLogger(__name__)

NEVER_STARTED = "the daemon ended before it could start the run: it was never started"
NOT_KNOWN = "the daemon ended, and it is not known whether the run was started: {}"
STARTED_LATE = "the daemon ended before it could start the run: it is started now, by the next daemon"
BUILT_IN = "the daemon ended while the run was running inside it"
NOT_THERE = "recorded again from what its keeper knows, because the run was not in the history"


@dataclass(frozen=True, slots=True)
class OpenRuns:
    """The runs that an earlier daemon left unfinished and that continue, oldest first.

    `waiting` are queued. `running` are known to a keeper. `unstarted` are recorded as running, were never started, and
    must be started now.
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
) -> OpenRuns:
    """Close the runs that cannot continue: running rows that no keeper knows, and queued runs of removed jobs.

    `known` are the runs that keepers know. Those that the ledger does not have are recorded. `builtin` are the jobs whose
    action is a built-in. `doubt_of(run_id)` returns why the child of a run that no keeper knows may have been started
    nevertheless, None when it provably was not. Durable when this returns.
    """
    _record_missing(store, clock, known)
    ended: list[Run] = []
    retries: list[Run] = []
    still = OpenRuns([], [], [])
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


def _why_left(job: Job | None, run: Run, record: JobRecord | None, still: OpenRuns, now: datetime) -> str | None:
    """Return why a run that was never started is not started now, or None when it is."""
    if job is None:
        return GONE
    if run.details.get("reason") == RECORDED_BEFORE:
        return "another run represents its occurrence"
    most = max_running(job)
    beside = sum(each.job_id == run.job_id for each in (*still.running, *still.unstarted))
    if most is not None and beside >= most:
        return "another run of the job is still running"
    pause = record.pause if record is not None else None
    is_paused = pause is not None and not pause_is_over(pause.until, now)
    return why_left_unstarted(job, run, is_paused, record is None or record.rule != rule_of(job), now)


def _abandoned(job: Job | None, run: Run, why: str, now: datetime) -> tuple[Run, Run | None]:
    """Return the row of a run that cannot continue, and the row of the next attempt, if any."""
    log.warning("job %s: run %s is abandoned: %s", run.job_id, run.run_id, why)
    over = finish(run, Result(Status.ABANDONED, message=why), now, None)
    return next_row(job, run, over, now) if job is not None else (over, None)


def _record_missing(store: Store, clock: Clock, known: Mapping[str, KnownRun]) -> None:
    """Record the runs that keepers know and the ledger does not have: it was replaced or recreated."""
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
    """Return the row of a run from its keeper's record; None when the keeper does not know its job."""
    job_id, attempt, origin, at = map(kept.who.get, WHO)
    if job_id is None or attempt is None or origin is None:
        log.error("run %s is not in the history, and its keeper does not know its job: it continues unsupervised", run_id)
        return None
    scheduled_at = datetime.fromisoformat(at) if at is not None else None
    return Run(
        run_id, job_id, Origin(origin), Status.RUNNING, kept.started_at or now, scheduled_at, int(attempt), kept.started_at,
        details={"reason": NOT_THERE}, node=socket.gethostname(),
    )  # fmt: skip


def watch_again(
    table: JobTable,
    launcher: Launcher,
    listener: RunListener,
    running: list[Run],
    retired: Callable[[str], Job | None],
) -> None:
    """Count runs of an earlier daemon as running, and let the launcher report their ends. Some may already have ended.

    `retired(job_id)` returns the known properties of a job that was removed from the configuration.
    """
    for run in running:
        with table.lock:
            state = table.states.get(run.job_id)
            if state is None:
                job = retired(run.job_id) or Job(run.job_id, run.job_id, "command", {})
                state = table.retired.setdefault(run.job_id, JobState(job))
            state.running[run.run_id] = run
            table.touch(state)
        launcher.adopt(state.job, run, listener)
        log.info("job %s: run %s is supervised again", run.job_id, run.run_id)


def start_unstarted(table: JobTable, run_queue: RunQueue, dispatcher: Dispatcher, unstarted: list[Run]) -> None:
    """Start runs that are recorded as running and were never started. Their rows are already durable."""
    for run in unstarted:
        with table.lock:
            run_queue.enter(table.get(run.job_id), run)
        log.warning("job %s: run %s: %s", run.job_id, run.run_id, STARTED_LATE)
        dispatcher.launch(run)


def queue_again(table: JobTable, run_queue: RunQueue, dispatcher: Dispatcher, waiting: list[Run]) -> None:
    """Return runs to the queues of their jobs, replace older runs where that is the policy, and promote."""
    for run in waiting:
        with table.lock:
            run_queue.wait(table.get(run.job_id), run)
    with table.lock:
        run_queue.recount()
    for run in waiting:
        dispatcher.replace_with(run)  # the daemon may have died before it gave the stop orders
    dispatcher.promote_all()
