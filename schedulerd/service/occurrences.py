"""The operation `next_times`: the coming occurrences of a job, its retries, and the runs that are queued."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..core.clock import Clock
from ..core.errors import StoreError
from ..core.misfires import newest_started, pause_is_over
from ..core.models import MICROSECOND, CatchUp, Job, Role, Run, to_text
from ..core.retries import retry_at_of
from ..core.trigger import Occurrence, Trigger
from ..engine.state import JobState, JobTable
from ..store.protocol import Store
from .local_times import local_text, parse_time
from .roles import needs
from .wait_reasons import WaitReasons, queued_view

MOST_FUTURE = 1000  # rows of the ledger with times to come, which exist when the clock was set back
MOST_QUEUED = 10  # runs in an answer
MOST_SKIPPED = 100  # occurrences in blackouts in an answer
STORE_UNREAD = (
    "the store is unavailable: if the clock was set back, some of these times have been decided already and will not start"
)


class Occurrences:
    """Computes the coming times of jobs."""

    def __init__(self, table: JobTable, store: Store, clock: Clock, wait_reasons: WaitReasons) -> None:
        self._table = table
        self._store = store
        self._clock = clock
        self._wait_reasons = wait_reasons

    @needs(Role.VIEWER)
    def next_times(self, job_id: str, count: int, after_text: str | None) -> dict[str, Any]:
        """Return the next `count` starts of a job after a time (default: now), each with the rules that affect it.

        A time without an offset is a local time of the job. Raise NotFoundError or InvalidError.
        """
        with self._table.lock:
            state = self._table.get(job_id)
        now = self._clock.now()
        after = parse_time(after_text, state.job.timezone, "after")[0] if after_text is not None else now
        decided = self._decided(state.job.job_id, now) if state.job.is_scheduled else set()
        starts, skipped = _coming(state, count, after, decided or set()) if state.job.is_scheduled else ([], [])
        with self._table.lock:
            queued = sorted(state.queued or (), key=lambda run: run.position)
        pause = state.pause
        if pause is not None and pause_is_over(pause.until, now):
            pause = None
        return {
            **job_head(state.job),
            "after": to_text(after),
            "is_paused": pause is not None,
            "notes": [
                *notes_on(state, starts, count),
                *_unlisted(len(queued) - MOST_QUEUED),
                *([] if decided is not None else [STORE_UNREAD]),
            ],
            "times": _times(state, starts, queued, after)[:count],
            "skipped": [_time_view(each, state) for each in skipped],
            "waiting": [queued_view(run, self._wait_reasons.of(state, run, now)) for run in queued[:MOST_QUEUED]],
        }

    def _decided(self, job_id: str, now: datetime) -> set[datetime] | None:
        """Return the times to come that the ledger has already; None when the store cannot be read.

        There are such times after the clock was set back.
        """
        if self._store.trouble is not None:
            return None
        try:
            rows = self._store.occurrences(job_id, now, MOST_FUTURE)
        except StoreError:
            return None
        return {run.scheduled_at for run in rows if run.scheduled_at is not None}


def job_head(job: Job) -> dict[str, Any]:
    """Return the fields by which answers about the times of a job begin."""
    return {"job_id": job.job_id, "trigger": job.trigger.text if job.trigger else None, "timezone": job.timezone}


def newest_of_its_start(job: Job, found: Occurrence) -> Occurrence:
    """Return the newest of the occurrences that a blackout defers to the same instant: the one that starts."""
    if found.skipped is not None or job.trigger is None or not job.trigger.moves_starts or job.catch_up is CatchUp.ALL:
        return found
    newest = newest_started(job.trigger, found.scheduled_at, found.start_at)
    return job.trigger.occurrence_at(newest) if newest > found.scheduled_at else found


def notes_on(state: JobState, starts: list[Occurrence], count: int) -> list[str]:
    """Return the notes on the coming times of a job; `count` starts were requested."""
    job, trigger, notes = state.job, state.job.trigger, []
    if trigger is None:
        return ["it has no trigger: it starts by request only"]
    if not job.enabled:
        notes.append("it is disabled: its trigger starts nothing")
    if trigger.waits_for_end:
        notes.append("its next time is counted from the end of its last run: only that one is known")
    if trigger.events.at_startup:
        notes.append("it starts once at each start of the daemon")
    notes += [f"it starts {after}" for after in trigger.events.after]
    if not notes and len(starts) < count:
        notes.append("there are no further times" if starts else "it has no coming time")
    if state.pause is not None:
        until = to_text(state.pause.until) if state.pause.until else "it is resumed"
        notes.append(f"it is paused until {until}" + (f": {state.pause.reason}" if state.pause.reason else ""))
    return notes


def _coming(
    state: JobState, count: int, after: datetime, decided: set[datetime]
) -> tuple[list[Occurrence], list[Occurrence]]:
    """Return the occurrences that start later than `after`, and those in between that a blackout skips."""
    trigger = state.job.trigger
    starts: list[Occurrence] = []
    skipped: list[Occurrence] = []
    if trigger is None:
        return [], []
    if trigger.waits_for_end:
        known = state.next_run_at
        return ([Occurrence(known, known)] if known is not None and known > after else []), []
    found = trigger.occurrence_after(trigger.settled_by(after))
    while found is not None and len(starts) < count:
        if found.skipped is not None and len(skipped) == MOST_SKIPPED:
            found = _after_the_blackout(trigger, found)
            continue
        found = newest_of_its_start(state.job, found)
        if found.scheduled_at not in decided and found.start_at > after:
            (starts if found.skipped is None else skipped).append(found)
        found = trigger.occurrence_after(found.scheduled_at)
    return [trigger.occurrence_at(each.scheduled_at) for each in starts], skipped


def _after_the_blackout(trigger: Trigger, found: Occurrence) -> Occurrence | None:
    """Return the first occurrence after the blackout of `found`; None when there is none within the computed range."""
    start = trigger.next_after(found.start_at)
    return None if start is None else trigger.occurrence_after(trigger.settled_by(start - MICROSECOND))


def _times(state: JobState, starts: list[Occurrence], queued: list[Run], after: datetime) -> list[dict[str, Any]]:
    """Return the coming starts and the times of retries, in order."""
    found = [(each.start_at, _time_view(each, state)) for each in starts]
    for run in queued:
        at = retry_at_of(run)
        if at is not None and at > after:
            found.append((at, _retry_view(run, at, state, starts)))
    return [view for _, view in sorted(found, key=lambda each: each[0])]


def _time_view(each: Occurrence, state: JobState) -> dict[str, Any]:
    reasons = list(each.reasons)
    if state.pause is not None and not pause_is_over(state.pause.until, each.start_at):
        reasons.append("the job is paused then: it will be skipped")
    return {
        "at": to_text(each.start_at),
        "scheduled_at": to_text(each.scheduled_at),
        "local": local_text(each.start_at, state.job.timezone),
        "reasons": reasons,
        "run_id": None,
    }


def _retry_view(run: Run, at: datetime, state: JobState, starts: list[Occurrence]) -> dict[str, Any]:
    """Return the time of a retry as one of the coming starts."""
    reasons = [f"attempt {run.attempt}, after run {run.details.get('previous')}"]
    if state.pause is not None and not pause_is_over(state.pause.until, at):
        reasons.append("the job is paused then: it waits until the job is resumed")
    sooner = next((each for each in starts if each.start_at <= at), None)
    if sooner is not None and run.scheduled_at is not None and sooner.scheduled_at > run.scheduled_at:
        reasons.append(f"it is superseded if the occurrence of {to_text(sooner.scheduled_at)} starts before")
    return {
        "at": to_text(at),
        "scheduled_at": to_text(run.scheduled_at) if run.scheduled_at else None,
        "local": local_text(at, state.job.timezone),
        "reasons": reasons,
        "run_id": run.run_id,
    }


def _unlisted(number: int) -> list[str]:
    return [f"{number} more {'run is' if number == 1 else 'runs are'} queued"] if number > 0 else []
