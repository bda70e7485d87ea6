"""The operation `why`: what happened to an occurrence, or will happen, and by which rule."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from ..core.clock import Clock
from ..core.errors import StoreError
from ..core.misfires import pause_is_over
from ..core.models import MICROSECOND, NOT_STARTED, UNFINISHED, Job, Role, Run, Status, to_text
from ..core.trigger import Occurrence
from ..core.units import format_duration
from ..engine.state import JobState, JobTable
from ..store.protocol import Store
from .local_times import local_text, parse_time
from .occurrences import job_head, newest_of_its_start, notes_on
from .roles import needs
from .serializers import run_view
from .wait_reasons import WaitReasons

NEAR_ROWS = 20  # of the ledger, around an occurrence
A_MINUTE, A_SECOND = timedelta(minutes=1), timedelta(seconds=1)


class Explanations:
    """Explains occurrences by the ledger, and by the rules where the ledger has no row."""

    def __init__(self, table: JobTable, store: Store, clock: Clock, wait_reasons: WaitReasons) -> None:
        self._table = table
        self._store = store
        self._clock = clock
        self._wait_reasons = wait_reasons

    @needs(Role.VIEWER)
    def why(self, job_id: str, at_text: str | None) -> dict[str, Any]:
        """Explain the occurrence at a time; without a time, the last one in the ledger.

        A time without an offset is a local time of the job. Raise NotFoundError or InvalidError.
        """
        with self._table.lock:
            state = self._table.get(job_id)
        job, now = state.job, self._clock.now()
        if at_text is None:
            return self._explain_last(state, now)
        at, gap = parse_time(at_text, job.timezone, "at")
        found = self._rows_at(job, at)
        if found is not None:
            return self._explain_rows(state, at, found, gap, now)
        outcome, reason = self._explain_without_row(state, at, now)
        return _explanation(job, at, outcome, _with_gap(gap, reason))

    def _explain_last(self, state: JobState, now: datetime) -> dict[str, Any]:
        job = state.job
        newest = self._with_memory(lambda: self._store.history(job.job_id, 1), self._table.known(job.job_id))
        if not newest:
            why = ["the ledger has no run of this job", *notes_on(state, [], 0)]
            return _explanation(job, now, "unknown", "; ".join(why))
        last = max(newest, key=lambda run: run.position)
        return self._explain_rows(state, last.scheduled_at or last.queued_at, [last], "", now)

    def _with_memory(self, read: Callable[[], list[Run]], known: list[Run]) -> list[Run]:
        """Return rows of the ledger, with the runs in memory while the store is unavailable. Raise StoreError."""
        try:
            rows = read()
        except StoreError:
            if not known:
                raise
            return known
        newer = known if self._store.trouble is not None else []
        return list({run.run_id: run for run in (*rows, *newer)}.values())

    def _explain_rows(self, state: JobState, at: datetime, rows: list[Run], gap: str, now: datetime) -> dict[str, Any]:
        """Explain an occurrence by its rows, of which the last attempt decides; a queued run by its wait reasons."""
        last = rows[-1]
        found = self._wait_reasons.of(state, last, now) if last.status is Status.QUEUED else []
        sentence = "; ".join([_sentence(last), *(f"it waits for {each.text}" for each in found)])
        return {
            **_explanation(state.job, at, str(last.status), _with_gap(gap, sentence)),
            "run": run_view(last),
            "attempts": [run_view(run) for run in rows],
            "waits_for": [each.view() for each in found],
        }

    def _rows_at(self, job: Job, at: datetime) -> list[Run] | None:
        """Return the rows of the occurrence at `at` or within its precision, or the row of the gap that contains it."""
        until = at + _precision(at)
        known = [
            run for run in self._table.known(job.job_id) if run.scheduled_at is not None and at <= run.scheduled_at < until
        ]
        rows = self._with_memory(lambda: self._store.occurrences(job.job_id, at, NEAR_ROWS), known)
        rows.sort(key=lambda run: (run.scheduled_at or run.queued_at, run.attempt))
        near = [run for run in rows if run.scheduled_at is not None and run.scheduled_at < until]
        if near:
            exact = any(run.scheduled_at == at for run in near)
            meant = at if exact else next((run for run in near if run.status not in NOT_STARTED), near[0]).scheduled_at
            return [run for run in near if run.scheduled_at == meant]
        is_to_come = at > self._clock.now()  # then a clock that was ahead has passed over it, and it will start
        covering = None if is_to_come else next((run for run in rows if _covers(run, at)), None)
        return None if covering is None or not self._was_due(job, at, until, covering) else [covering]

    def _was_due(self, job: Job, at: datetime, until: datetime, covering: Run) -> bool:
        """Return whether a time in a gap was an occurrence, according to the trigger if it was in force then."""
        record = self._store.jobs().get(job.job_id)
        if job.trigger is None or record is None or record.planned_since >= covering.queued_at:
            return True  # of an earlier trigger, which only the ledger knows
        return job.trigger.count(at - MICROSECOND, until - MICROSECOND) > 0

    def _explain_without_row(self, state: JobState, at: datetime, now: datetime) -> tuple[str, str]:
        """Return the outcome and the reason for a time of which the ledger has no row."""
        job, trigger = state.job, state.job.trigger
        if trigger is None:
            return "not_due", "the job has no trigger: it starts by request only"
        if not job.enabled:
            return "not_due", "the job is disabled: its trigger starts nothing"
        if trigger.waits_for_end:
            return "not_due", "its times are counted from the end of its last run: only the ledger knows them"
        following = trigger.occurrence_after(at - MICROSECOND)
        if following is None or following.scheduled_at - at >= _precision(at):
            return "not_due", _not_due(job, at)
        occurrence = trigger.occurrence_at(following.scheduled_at)
        if occurrence.start_at > now:
            return "coming", _coming_text(occurrence, state)
        return self._explain_past(job, occurrence)

    def _explain_past(self, job: Job, occurrence: Occurrence) -> tuple[str, str]:
        record = self._store.jobs().get(job.job_id)
        since = record.planned_since if record else self._clock.now()
        if occurrence.scheduled_at <= since:
            return "not_planned", (
                f"the trigger has an occurrence then, but has been in force only since {local_text(since, job.timezone)}: "
                "before, the job was not defined, was disabled, or had another trigger"
            )
        return "unknown", "it was due, but the ledger has no row of it: it is being decided, or was deleted by `cleanup`"


def _precision(at: datetime) -> timedelta:
    """Return the precision of a time: 10:00 means its whole minute, 10:00:20 its whole second."""
    if at.microsecond:
        return MICROSECOND
    return A_SECOND if at.second else A_MINUTE


def _with_gap(gap: str, reason: str) -> str:
    """Return a reason after the sentence about a time that does not exist, unless the reason includes it."""
    when = gap.partition(" does not exist")[0]
    return f"{gap} {reason}" if gap and f"{when}:00 does not exist" not in reason else reason


def _covers(run: Run, at: datetime) -> bool:
    """Return whether a row stands for a range of occurrences that contains `at`."""
    first, last = run.details.get("first"), run.details.get("last")
    if run.status not in NOT_STARTED or not isinstance(first, str) or not isinstance(last, str):
        return False
    return datetime.fromisoformat(first) <= at <= datetime.fromisoformat(last)


def _sentence(run: Run) -> str:
    """Return a row in words."""
    when = f"{run.origin} run" if run.scheduled_at is None else f"occurrence of {to_text(run.scheduled_at)}"
    parts = [f"{when}: {str(run.status).replace('_', ' ')}"]
    if run.status not in NOT_STARTED and run.started_at is not None:
        late = run.lateness_seconds
        parts.append(
            f"started at {to_text(run.started_at)}" + ("" if late is None else f", {format_duration(max(0.0, late))} late")
        )
    if run.origin not in ("schedule", "manual"):
        parts.append(f"origin {run.origin}")
    if run.error_message:
        parts.append(run.error_message)
    parts += [f"{text}" for text in run.details.get("rules", ())]
    cause = run.details.get("cause")
    parts += [f"because {cause}"] if cause else []
    parts += ["it has not ended"] if run.status in UNFINISHED else []
    return "; ".join(parts)


def _explanation(job: Job, at: datetime, outcome: str, reason: str) -> dict[str, Any]:
    return {
        **job_head(job), "at": to_text(at), "local": local_text(at, job.timezone), "outcome": outcome, "reason": reason,
        "run": None, "attempts": [], "waits_for": [],
    }  # fmt: skip


def _not_due(job: Job, at: datetime) -> str:
    """Return why a job is not due at a time, and its next time."""
    trigger = job.trigger
    assert trigger is not None  # noqa: S101 - checked by the caller
    why = trigger.why_not(at) or "its trigger has no occurrence then"
    following = trigger.occurrence_after(at)
    if following is not None:
        why += f"; the next one is {local_text(following.scheduled_at, job.timezone)}"
    return why


def _coming_text(occurrence: Occurrence, state: JobState) -> str:
    if state.pause is not None and not pause_is_over(state.pause.until, occurrence.start_at):
        return "it will be skipped: the job is paused" + (f" ({state.pause.reason})" if state.pause.reason else "")
    if occurrence.skipped is not None:
        return f"it will be skipped: {occurrence.skipped}"
    if newest_of_its_start(state.job, occurrence).scheduled_at > occurrence.scheduled_at:
        return "; ".join((*occurrence.reasons, "it will be missed: a newer one starts at the same time instead"))
    return "; ".join((f"it will start at {to_text(occurrence.start_at)}", *occurrence.reasons))
