"""Decisions about due occurrences: which of them start, and why the others do not.

Pure functions: no clock, no store, no thread. The scheduler calls them and acts on the results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby

from .models import MICROSECOND, CatchUp, Job, Origin, Run, Status, to_text
from .retries import deadline_of
from .trigger import NO_EVENTS, After, Occurrence, Trigger, When
from .units import format_duration

MOST_DUE = 1000  # occurrences of one job that one decision considers; earlier ones are only counted
OVERDUE = timedelta(seconds=10)  # an occurrence decided later than this was delayed by a failure
CATCH_UP_STEP = 0.1  # seconds between the catch-ups of different jobs, less when there are very many


@dataclass(frozen=True, slots=True)
class Gap:
    """A range of `count` occurrences from `first` to `last`, recorded as one row."""

    first: datetime
    last: datetime
    count: int


@dataclass(frozen=True, slots=True)
class Due:
    """The due occurrences of one job: the newest in `occurrences`, ascending, and all earlier ones as a `Gap`.

    `cause` is the known reason of their lateness: the daemon was not running, the clock was set, or the host was asleep.
    """

    occurrences: Sequence[Occurrence]
    earlier: Gap | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """An occurrence to start; `is_misfire` is true when it is later than the job's `misfire_grace`."""

    occurrence: Occurrence
    is_misfire: bool = False

    @property
    def scheduled_at(self) -> datetime:
        """Return the scheduled time of the occurrence."""
        return self.occurrence.scheduled_at


@dataclass(frozen=True, slots=True)
class Passed:
    """Occurrences that are not started, for the reason `why`. `status` is skipped or missed."""

    status: Status
    gap: Gap
    why: str
    window: str | None = None  # the blackout, if that is the reason

    def __str__(self) -> str:
        """Return the reason for display, with the number of occurrences when there are several."""
        text = {PAUSED: "the job is paused", BLACKOUT: f"in {self.window}"}.get(self.why, self.why)
        if self.gap.count == 1:
            return text
        return f"{text} ({self.gap.count} occurrences, {to_text(self.gap.first)} to {to_text(self.gap.last)})"


PAUSED, BLACKOUT = "paused", "blackout"  # reasons for skipped occurrences
SUPERSEDED = "a newer occurrence was started instead"
TOO_LATE = "later than its misfire_grace"
CHANGED = "its rule was changed before it was started"


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about all due occurrences of a job; each occurrence is in exactly one of the fields.

    `later` are not decided yet, because catch-ups are spaced: the next decision considers them again.
    """

    start: tuple[Start, ...] = ()
    passed: tuple[Passed, ...] = ()
    later: tuple[Occurrence, ...] = field(default=())


def due_of(trigger: Trigger, after: datetime, now: datetime, most: int = MOST_DUE) -> Due:
    """Return the occurrences later than `after` whose start is not later than `now`.

    At most the newest `most` are listed. Earlier ones are counted without enumeration, and bisection finds the first listed
    one. An occurrence that is scheduled by `now`, but delayed to a later start, is not due.
    """
    upto = newest_started(trigger, after, now) if trigger.moves_starts else now
    number = trigger.count(after, upto)
    since = after if number <= most else _begin_of_newest(trigger, after, upto, most)
    found = list(_started_by(trigger, since, now))
    first = trigger.occurrence_after(after)
    if since == after or not found or first is None:
        return Due(found)
    return Due(found, Gap(first.scheduled_at, since, number - trigger.count(since, upto)))


def newest_started(trigger: Trigger, after: datetime, now: datetime) -> datetime:
    """Return the newest occurrence later than `after` that starts by `now`, else `after`. Starts are in ascending order."""
    low, high = after, now
    while high - low > MICROSECOND:
        middle = low + (high - low) // 2
        found = trigger.occurrence_after(middle)
        if found is not None and found.start_at <= now:
            low = found.scheduled_at
        else:
            high = middle
    found = trigger.occurrence_after(low)
    return low if found is None or found.start_at > now else found.scheduled_at


def most_needed(job: Job) -> int:
    """Return how many due occurrences of a job a decision considers individually."""
    if job.trigger is not None and job.trigger.has_blackouts:
        return MOST_DUE
    return job.catch_up_limit if job.catch_up is CatchUp.ALL else 1


def _begin_of_newest(trigger: Trigger, after: datetime, now: datetime, most: int) -> datetime:
    """Return the occurrence before the newest `most` ones."""
    low, high = after, now  # invariant: more than `most` are later than `low`, at most `most` later than `high`
    span = timedelta(minutes=1)
    while now - span > after and trigger.count(now - span, now) <= most:  # short spans first: counting them is cheap
        high, span = now - span, span * 2
    low = max(after, now - span)
    while high - low > MICROSECOND:
        middle = low + (high - low) // 2
        if trigger.count(middle, now) > most:
            low = middle
        else:
            high = middle
    return high


def _started_by(trigger: Trigger, after: datetime, now: datetime) -> Iterator[Occurrence]:
    found = trigger.occurrence_after(after)
    while found is not None and found.start_at <= now:
        yield found
        found = trigger.occurrence_after(found.scheduled_at)


def decide_due(job: Job, due: Due, now: datetime) -> Decision:
    """Return which of the due occurrences start.

    Occurrences in a blackout are skipped. Of the others, one later than `misfire_grace` is a misfire. With `catch_up:
    latest`, the newest starts; with `none`, it starts only if it is within the grace. Earlier ones are missed, because the
    newest replaces them. With `all`, each starts, one after the other, `catch_up_spacing` apart. Occurrences older than
    `catch_up_age` are missed. With `all`, those before the newest `catch_up_limit` are missed, too.
    """
    fates, before = _fates(job, due, now)
    wanted = [place for place, why in enumerate(fates) if why is None]
    now_started = wanted[:1] if job.catch_up_spacing_seconds else wanted
    decided = wanted[1] if len(wanted) > len(now_started) else len(fates)
    starts = [due.occurrences[place] for place in now_started]
    passed = _grouped([*zip(due.occurrences[:decided], fates[:decided], strict=True)], due.earlier, before)
    return Decision(
        tuple(Start(each, _is_misfire(job, each, now)) for each in starts), tuple(passed), tuple(due.occurrences[decided:])
    )


def _fates(job: Job, due: Due, now: datetime) -> tuple[list[str | None], str]:
    """Return the reason why each occurrence is not started, or None if it is, and the reason for the earlier ones."""
    fates = [_fate(job, each, now) for each in due.occurrences]
    if job.catch_up is CatchUp.ALL:
        over = f"more than its catch_up_limit of {job.catch_up_limit}"
        kept = {place for place, why in enumerate(fates) if why is None}
        kept -= set(sorted(kept)[: -job.catch_up_limit])
        return [over if why is None and place not in kept else why for place, why in enumerate(fates)], over
    newest = max((place for place, why in enumerate(fates) if why != BLACKOUT), default=None)
    instead = SUPERSEDED if newest is not None and fates[newest] is None else TOO_LATE
    return [why if why == BLACKOUT or place == newest else instead for place, why in enumerate(fates)], instead


def decide_held(job: Job, due: Due, now: datetime) -> Decision:
    """Decide about occurrences whose decision was delayed. Newer ones may have been decided in the meantime."""
    why = _newer_stands(job, due.occurrences[-1].scheduled_at, now)
    return pass_all(due, Status.MISSED, why) if why is not None else decide_due(job, due, now)


def one_by_one(decision: Decision, due: Due) -> Decision:
    """Return a decision with a separate `Passed` for each occurrence that is not started."""
    passed = [
        Passed(one.status, Gap(each.scheduled_at, each.scheduled_at, 1), one.why, one.window)
        for one in decision.passed
        for each in due.occurrences
        if one.gap.first <= each.scheduled_at <= one.gap.last
    ]
    return replace(decision, passed=tuple(passed))


def pass_all(due: Due, status: Status, why: str) -> Decision:
    """Return the decision to start none of the due occurrences, for one reason such as PAUSED."""
    first = due.earlier.first if due.earlier else due.occurrences[0].scheduled_at
    count = len(due.occurrences) + (due.earlier.count if due.earlier else 0)
    return Decision(passed=(Passed(status, Gap(first, due.occurrences[-1].scheduled_at, count), why),))


def still_starts(job: Job, origin: Origin) -> bool:
    """Return whether a job, which may have changed, still has the kind of trigger that made it due."""
    events = job.trigger.events if job.trigger is not None else NO_EVENTS
    if origin is Origin.STARTUP:
        return job.enabled and events.at_startup
    return job.enabled and (origin is not Origin.AFTER or bool(events.after))


def why_left_unstarted(job: Job, run: Run, is_paused: bool, is_replanned: bool, now: datetime) -> str | None:
    """Return why a run that is recorded as running, but was never started, is not started now; None if it is.

    An occurrence follows the catch-up policy of its job. A retry starts like a waiting retry. A manual run starts within the
    job's `misfire_grace`. `is_replanned` is true when the job's trigger has changed since the run was recorded.
    """
    deadline_at = deadline_of(job, run, None)
    if deadline_at is not None and deadline_at <= now:
        return "its deadline has passed"
    if run.origin is Origin.STARTUP:
        return "the start of this daemon is an occurrence of its own"
    if run.origin is Origin.MANUAL:
        is_old = now - run.queued_at > timedelta(seconds=job.misfire_grace_seconds)
        return TOO_LATE if is_old else None
    if is_replanned or not still_starts(job, run.origin):
        return CHANGED
    if is_paused:
        return "the job is paused"
    if run.origin is Origin.RETRY or run.scheduled_at is None or job.trigger is None:
        return None
    occurrence = job.trigger.occurrence_at(run.scheduled_at)
    if occurrence.skipped is not None:
        return f"in {occurrence.skipped}"
    return _fate(job, occurrence, now) or _superseded(job, run, now)


def why_too_late(job: Job, run: Run, now: datetime) -> str | None:
    """Return why an occurrence whose row was recorded late is not started; None if it is."""
    if run.origin is not Origin.SCHEDULE or run.scheduled_at is None or job.trigger is None:
        return None
    if now - run.queued_at <= OVERDUE:
        return None  # the decision still holds
    return _fate(job, job.trigger.occurrence_at(run.scheduled_at), now)


def _superseded(job: Job, run: Run, now: datetime) -> str | None:
    """Return SUPERSEDED if a newer occurrence replaces an unstarted one under the catch-up policy, else None."""
    if run.origin is Origin.AFTER or run.scheduled_at is None:
        return None
    return _newer_stands(job, run.scheduled_at, now)


def _newer_stands(job: Job, scheduled_at: datetime, now: datetime) -> str | None:
    if job.catch_up is CatchUp.ALL or job.trigger is None or job.trigger.waits_for_end:
        return None
    newer = job.trigger.occurrence_after(scheduled_at)
    return SUPERSEDED if newer is not None and newer.start_at <= now and newer.skipped is None else None


def _is_misfire(job: Job, occurrence: Occurrence, now: datetime) -> bool:
    return now - occurrence.start_at > timedelta(seconds=job.misfire_grace_seconds)


def _fate(job: Job, occurrence: Occurrence, now: datetime) -> str | None:
    """Return why an occurrence, considered alone, cannot start now; None if it can."""
    if occurrence.skipped is not None:
        return BLACKOUT
    if job.catch_up is CatchUp.NONE and _is_misfire(job, occurrence, now):
        return TOO_LATE
    age = job.catch_up_age_seconds
    if age and now - occurrence.start_at > max(timedelta(seconds=age), OVERDUE):
        return f"older than its catch_up_age of {format_duration(age)}"
    return None


def _grouped(fates: Sequence[tuple[Occurrence, str | None]], earlier: Gap | None, before: str) -> Iterator[Passed]:
    """Yield one element for each series of consecutive occurrences with the same reason; the first includes `earlier`."""
    if earlier is not None and (not fates or fates[0][1] != before):
        yield Passed(Status.MISSED, earlier, before)
        earlier = None
    for (why, window), series in groupby(fates, lambda pair: (pair[1], pair[0].skipped)):
        if why is not None:
            times = [occurrence.scheduled_at for occurrence, _ in series]
            first, count = (earlier.first, earlier.count) if earlier else (times[0], 0)
            gap = Gap(first, times[-1], count + len(times))
            yield Passed(Status.SKIPPED if window else Status.MISSED, gap, why, window)
        earlier = None


def spread_out(count: int, seconds: float) -> list[float]:
    """Return the delays in seconds after which `count` overdue jobs are decided: CATCH_UP_STEP apart, all within `seconds`.

    Catch-ups after a long downtime do not all start at once, and do not delay occurrences that are on time.
    """
    step = min(CATCH_UP_STEP, seconds / count) if count else 0.0
    return [place * step for place in range(count)]


def decided_after_step_back(trigger: Trigger, decided: datetime, before: datetime, now: datetime) -> datetime:
    """Return the instant through which a job is decided after the clock was set back from `before` to `now`.

    Repeated times are considered again. The ledger rejects occurrences that were started: a fixed time does not start twice,
    and one that a wrong clock skipped is not lost. A job that follows elapsed time continues from the new time, as in
    Debian's cron(8), but not earlier than half its period after its last occurrence.
    """
    if decided <= now:
        return decided
    rhythm = trigger.rhythm
    if trigger.waits_for_end:
        return decided - (before - now)
    following = rhythm.next_after(now) if rhythm is not None else None
    if rhythm is None or following is None:
        return now
    after = rhythm.next_after(following)
    is_too_soon = after is not None and (following - now) + (before - decided) < (after - following) / 2
    return min(following, decided) if is_too_soon else now


def follows(after: After, ends: Mapping[str, datetime]) -> datetime | None:
    """Return when a job becomes due by `after`, given the ends since it was last due; None if it does not."""
    matching = [ends[job_id] for job_id in after.jobs if job_id in ends]
    if not matching or (after.needs_all and len(matching) < len(after.jobs)):
        return None
    return max(matching)


def is_wanted(after: After, status: Status) -> bool:
    """Return whether a job with this `after` starts when a run ends with `status`."""
    if after.when is When.ALWAYS:
        return True
    return (status is Status.SUCCESS) is (after.when is When.SUCCESS) and status is not Status.CANCELLED


def pause_is_over(until: datetime | None, now: datetime) -> bool:
    """Return whether a pause until `until` has expired. A pause without an end never expires."""
    return until is not None and now >= until
