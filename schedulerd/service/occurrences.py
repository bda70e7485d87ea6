"""What will start when, what became of an occurrence, and why: answers from the rules and the ledger together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from ..core.clock import Clock
from ..core.errors import InvalidError, StoreError, TriggerError
from ..core.misfires import newest_started, pause_is_over
from ..core.models import MICROSECOND, NOT_STARTED, UNFINISHED, CatchUp, Job, Run, Status, to_text
from ..core.retries import retry_at_of
from ..core.trigger import Occurrence, Trigger
from ..core.units import format_duration
from ..engine.run_queue import RunQueue
from ..engine.state import JobState, JobTable
from ..store.protocol import Store
from ..triggers.date import instant_from
from ..triggers.wallclock import gap_around
from .forecast import local_text, within_reach
from .serializers import run_view
from .wait_reasons import Hindrance, hindrances, waiting_view

NEAR_ROWS = 20  # of the ledger that are looked at around an occurrence
MOST_FUTURE = 1000  # rows of times that are still to come, after the clock was set back
WAITING_TOLD = 10  # runs of a job that wait
SKIPS_TOLD = 100  # occurrences in blackouts that are told with the coming times
UNASKED = "the history is away: should the clock have been set back, some of these are in it already, and will not start"
A_MINUTE, A_SECOND = timedelta(minutes=1), timedelta(seconds=1)


class Outlook:
    """Looks ahead and back on behalf of callers."""

    def __init__(self, table: JobTable, store: Store, clock: Clock, run_queue: RunQueue) -> None:
        self._table = table
        self._store = store
        self._clock = clock
        self._run_queue = run_queue

    # Coming times

    def next_times(self, job_id: str, count: int, after_text: str | None) -> dict[str, Any]:
        """Return the next `count` starts of a job after a time (default: now), with every rule that had a say.

        A time without a zone is one of the job's. Raise NotFoundError or InvalidError.
        """
        state, now = self._state(job_id), self._clock.now()
        after = _asked_for(after_text, state.job, "after")[0] if after_text is not None else now
        decided = self._decided(state.job.job_id, now) if state.job.is_scheduled else set()
        starts, skipped = self._coming(state, count, after, decided or set()) if state.job.is_scheduled else ([], [])
        with self._table.lock:
            waiting = sorted(state.queued or (), key=lambda run: run.position)
        pause = state.pause
        if pause is not None and pause_is_over(pause.until, now):
            pause = None
        return {
            **_head(state.job),
            "after": to_text(after),
            "is_paused": pause is not None,
            "notes": [
                *_notes(state, starts, count),
                *_untold(len(waiting) - WAITING_TOLD),
                *([] if decided is not None else [UNASKED]),
            ],
            "times": self._times(state, starts, waiting, after)[:count],
            "skipped": [self._time(each, state) for each in skipped],
            "waiting": [waiting_view(run, self._hindrances(state, run, now)) for run in waiting[:WAITING_TOLD]],
        }

    def _times(self, state: JobState, starts: list[Occurrence], waiting: list[Run], after: datetime) -> list[dict[str, Any]]:
        """Return the coming starts, with those of retries among them."""
        found = [(each.start_at, self._time(each, state)) for each in starts]
        for run in waiting:
            at = retry_at_of(run)
            if at is not None and at > after:
                found.append((at, _retry_time(run, at, state, starts)))
        return [told for _, told in sorted(found, key=lambda each: each[0])]

    def _hindrances(self, state: JobState, run: Run, now: datetime) -> list[Hindrance]:
        """Return what a run waits for; nothing when it does not wait any more."""
        if state.job.only_if:
            self._run_queue.measure()
        with self._table.lock:
            does_wait = any(each.run_id == run.run_id for each in state.queued or ())
            return hindrances(self._table, self._run_queue, state, run, now) if does_wait else []

    def _coming(
        self, state: JobState, count: int, after: datetime, decided: set[datetime]
    ) -> tuple[list[Occurrence], list[Occurrence]]:
        """Return the occurrences that start later than `after`, and those in between that a blackout forbids."""
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
            if found.skipped is not None and len(skipped) == SKIPS_TOLD:
                found = _after_the_blackout(trigger, found)
                continue
            found = _newest_of_its_start(state.job, found)
            if found.scheduled_at not in decided and found.start_at > after:
                (starts if found.skipped is None else skipped).append(found)
            found = trigger.occurrence_after(found.scheduled_at)
        return [trigger.occurrence_at(each.scheduled_at) for each in starts], skipped

    def _decided(self, job_id: str, now: datetime) -> set[datetime] | None:
        """Return the times to come that the ledger has already: the clock was set back since. None: it cannot be asked."""
        if self._store.trouble is not None:
            return None
        try:
            rows = self._store.occurrences(job_id, now, MOST_FUTURE)
        except StoreError:
            return None
        return {run.scheduled_at for run in rows if run.scheduled_at is not None}

    @staticmethod
    def _time(each: Occurrence, state: JobState) -> dict[str, Any]:
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

    # What became of an occurrence

    def why(self, job_id: str, at_text: str | None) -> dict[str, Any]:
        """Return what became, or will become, of the occurrence at a time, and why; without a time, of the last one.

        A time without a zone is one of the job's. Raise NotFoundError or InvalidError.
        """
        state, now = self._state(job_id), self._clock.now()
        job = state.job
        if at_text is None:
            return self._why_last(state, now)
        at, gap = _asked_for(at_text, job, "at")
        found = self._found(job, at)
        if found is not None:
            return self._told(state, at, found, gap, now)
        outcome, reason = self._without_row(state, at, now)
        return _answer(job, at, outcome, _with_gap(gap, reason))

    def _why_last(self, state: JobState, now: datetime) -> dict[str, Any]:
        job = state.job
        newest = self._with_known(lambda: self._store.history(job.job_id, 1), self._table.known(job.job_id))
        if not newest:
            why = ["the ledger has nothing of this job yet", *_notes(state, [], 0)]
            return _answer(job, now, "unknown", "; ".join(why))
        last = max(newest, key=lambda run: run.position)
        return self._told(state, last.scheduled_at or last.queued_at, [last], "", now)

    def _with_known(self, ask: Callable[[], list[Run]], known: list[Run]) -> list[Run]:
        """Return rows of the ledger; while that is away, with what memory has, or that alone, if anything."""
        try:
            rows = ask()
        except StoreError:
            if not known:
                raise
            return known
        newer = known if self._store.trouble is not None else []
        return list({run.run_id: run for run in (*rows, *newer)}.values())

    def _told(self, state: JobState, at: datetime, rows: list[Run], gap: str, now: datetime) -> dict[str, Any]:
        """Return the answer that the ledger gives, the last attempt deciding; of one that waits, what it waits for."""
        last = rows[-1]
        found = self._hindrances(state, last, now) if last.status is Status.QUEUED else []
        sentence = "; ".join([_sentence(last), *(f"it waits for {each.text}" for each in found)])
        answer = _answer(state.job, at, str(last.status), _with_gap(gap, sentence))
        told = {"run": run_view(last), "attempts": [run_view(run) for run in rows]}
        return {**answer, **told, "waits_for": [each.view() for each in found]}

    def _found(self, job: Job, at: datetime) -> list[Run] | None:
        """Return the rows of the occurrence at, or within the minute of, `at`, or the row of the gap that it lies in."""
        until = at + _precision(at)
        known = [
            run for run in self._table.known(job.job_id) if run.scheduled_at is not None and at <= run.scheduled_at < until
        ]
        rows = self._with_known(lambda: self._store.occurrences(job.job_id, at, NEAR_ROWS), known)
        rows.sort(key=lambda run: (run.scheduled_at or run.queued_at, run.attempt))
        near = [run for run in rows if run.scheduled_at is not None and run.scheduled_at < until]
        if near:
            exact = any(run.scheduled_at == at for run in near)
            meant = at if exact else next((run for run in near if run.status not in NOT_STARTED), near[0]).scheduled_at
            return [run for run in near if run.scheduled_at == meant]
        is_to_come = at > self._clock.now()  # then a clock that was ahead has only passed over it
        covering = None if is_to_come else next((run for run in rows if _covers(run, at)), None)
        return None if covering is None or not self._was_due(job, at, until, covering) else [covering]

    def _was_due(self, job: Job, at: datetime, until: datetime, covering: Run) -> bool:
        """Return whether a time in a gap was one of its occurrences: asked of the rule when that was in force then."""
        record = self._store.jobs().get(job.job_id)
        if job.trigger is None or record is None or record.planned_since >= covering.queued_at:
            return True  # an earlier rule, of which only the ledger tells
        return job.trigger.count(at - MICROSECOND, until - MICROSECOND) > 0

    def _without_row(self, state: JobState, at: datetime, now: datetime) -> tuple[str, str]:
        """Return what can be said of a time that the ledger has nothing about."""
        job, trigger = state.job, state.job.trigger
        if trigger is None:
            return "not_due", "the job has no trigger: it is only started by hand"
        if not job.enabled:
            return "not_due", "the job is disabled: it never starts on its own"
        if trigger.waits_for_end:
            return "not_due", "its times are counted from the end of its last run: only the ledger knows them"
        following = trigger.occurrence_after(at - MICROSECOND)
        if following is None or following.scheduled_at - at >= _precision(at):
            return "not_due", _not_due(job, at)
        occurrence = trigger.occurrence_at(following.scheduled_at)
        if occurrence.start_at > now:
            return "coming", _coming_text(occurrence, state)
        return self._past_without_row(job, occurrence)

    def _past_without_row(self, job: Job, occurrence: Occurrence) -> tuple[str, str]:
        record = self._store.jobs().get(job.job_id)
        since = record.planned_since if record else self._clock.now()
        if occurrence.scheduled_at <= since:
            return "not_planned", (
                f"by today's rule it would have been due, but the rule is in force since {local_text(since, job.timezone)}: "
                "before that the job was not there, was disabled, or had another rule"
            )
        return "unknown", "it was due, and the ledger has no row of it: it is being decided, or was cleaned up since"

    def _state(self, job_id: str) -> JobState:
        with self._table.lock:
            return self._table.get(job_id)


def _head(job: Job) -> dict[str, Any]:
    return {"job_id": job.job_id, "trigger": job.trigger.text if job.trigger else None, "timezone": job.timezone}


def _precision(at: datetime) -> timedelta:
    """Return how exactly a time is meant: 10:00 is all of its minute, 10:00:20 all of its second."""
    if at.microsecond:
        return MICROSECOND
    return A_SECOND if at.second else A_MINUTE


def _newest_of_its_start(job: Job, found: Occurrence) -> Occurrence:
    """Return the newest of the occurrences that a blackout defers to the same moment: it is the one that starts."""
    if found.skipped is not None or job.trigger is None or not job.trigger.moves_starts or job.catch_up is CatchUp.ALL:
        return found
    newest = newest_started(job.trigger, found.scheduled_at, found.start_at)
    return job.trigger.occurrence_at(newest) if newest > found.scheduled_at else found


def _after_the_blackout(trigger: Trigger, found: Occurrence) -> Occurrence | None:
    """Return the first occurrence that is not in the blackout of `found`; None when there is none in reach."""
    start = trigger.next_after(found.start_at)
    return None if start is None else trigger.occurrence_after(trigger.settled_by(start - MICROSECOND))


def _notes(state: JobState, starts: list[Occurrence], count: int) -> list[str]:
    """Return what else there is to know about the coming times of a job."""
    job, trigger, notes = state.job, state.job.trigger, []
    if trigger is None:
        return ["it has no trigger: it is only started by hand, or by a program"]
    if not job.enabled:
        notes.append("it is disabled: it never starts on its own")
    if trigger.waits_for_end:
        notes.append("its next time is counted from the end of its last run: only that one is known")
    if trigger.events.at_startup:
        notes.append("it starts once whenever the daemon starts")
    notes += [f"it starts {after}" for after in trigger.events.after]
    if not notes and len(starts) < count:
        notes.append("these are all" if starts else "it has no coming time")
    if state.pause is not None:
        until = to_text(state.pause.until) if state.pause.until else "it is resumed"
        notes.append(f"it is paused until {until}" + (f": {state.pause.reason}" if state.pause.reason else ""))
    return notes


def _asked_for(text: str, job: Job, name: str) -> tuple[datetime, str]:
    """Return the instant that a caller means, and a sentence when that local time does not exist. Raise InvalidError."""
    try:
        at = instant_from(name, text, job.timezone)
    except TriggerError as error:
        raise InvalidError(["query", name], f"Input should be a time: {error.why}", text, "datetime") from None
    within_reach(at, name)
    local = datetime.fromisoformat(text.strip())
    gap = gap_around(job.timezone, local) if local.tzinfo is None else None
    if gap is None:
        return at, ""
    return gap[1], f"{local:%H:%M} does not exist on {local:%Y-%m-%d} in {job.timezone}: {gap[0]}."


def _with_gap(gap: str, reason: str) -> str:
    """Return a reason with the sentence about the time that does not exist before it, unless it tells of that itself."""
    when = gap.partition(" does not exist")[0]
    return f"{gap} {reason}" if gap and f"{when}:00 does not exist" not in reason else reason


def _covers(run: Run, at: datetime) -> bool:
    """Return whether a row is about a gap of occurrences that `at` lies in."""
    first, last = run.details.get("first"), run.details.get("last")
    if run.status not in NOT_STARTED or not isinstance(first, str) or not isinstance(last, str):
        return False
    return datetime.fromisoformat(first) <= at <= datetime.fromisoformat(last)


def _untold(number: int) -> list[str]:
    return [f"{number} more {'run of it waits' if number == 1 else 'runs of it wait'}"] if number > 0 else []


def _retry_time(run: Run, at: datetime, state: JobState, starts: list[Occurrence]) -> dict[str, Any]:
    """Return the time of a retry as one of the coming starts."""
    reasons = [f"attempt {run.attempt}, after run {run.details.get('previous')}"]
    if state.pause is not None and not pause_is_over(state.pause.until, at):
        reasons.append("the job is paused then: it waits until it is resumed")
    sooner = next((each for each in starts if each.start_at <= at), None)
    if sooner is not None and run.scheduled_at is not None and sooner.scheduled_at > run.scheduled_at:
        reasons.append(f"it is superseded when the occurrence of {to_text(sooner.scheduled_at)} is started before")
    return {
        "at": to_text(at),
        "scheduled_at": to_text(run.scheduled_at) if run.scheduled_at else None,
        "local": local_text(at, state.job.timezone),
        "reasons": reasons,
        "run_id": run.run_id,
    }


def _sentence(run: Run) -> str:
    """Return what a row says, in words."""
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
    parts += ["it is not over yet"] if run.status in UNFINISHED else []
    return "; ".join(parts)


def _answer(job: Job, at: datetime, outcome: str, reason: str) -> dict[str, Any]:
    return {
        **_head(job), "at": to_text(at), "local": local_text(at, job.timezone), "outcome": outcome, "reason": reason,
        "run": None, "attempts": [], "waits_for": [],
    }  # fmt: skip


def _not_due(job: Job, at: datetime) -> str:
    """Return why a job is not due at a time, and which times are near."""
    trigger = job.trigger
    assert trigger is not None  # noqa: S101 - who asks has looked
    why = trigger.why_not(at) or "its rule has no time there"
    following = trigger.occurrence_after(at)
    if following is not None:
        why += f"; the next one after it is {local_text(following.scheduled_at, job.timezone)}"
    return why


def _coming_text(occurrence: Occurrence, state: JobState) -> str:
    if state.pause is not None and not pause_is_over(state.pause.until, occurrence.start_at):
        return "it will be skipped: the job is paused" + (f" ({state.pause.reason})" if state.pause.reason else "")
    if occurrence.skipped is not None:
        return f"it will be skipped: {occurrence.skipped}"
    if _newest_of_its_start(state.job, occurrence).scheduled_at > occurrence.scheduled_at:
        return "; ".join((*occurrence.reasons, "it will be missed: a newer one starts at the same moment instead"))
    return "; ".join((f"it will start at {to_text(occurrence.start_at)}", *occurrence.reasons))
