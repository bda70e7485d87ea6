"""The rules about what becomes of due times, overlaps and pauses.

Pure: values in, decisions out; no clock, no store, no thread. `scheduler` asks, then acts.
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

MOST_DUE = 1000  # occurrences of one job that are looked at in one decision; the rest is told as a count
OVERDUE = timedelta(seconds=10)  # an occurrence that is looked at later than this was missed by somebody
CATCH_UP_STEP = 0.1  # seconds between jobs that are caught up at the same time, or less when there are very many


@dataclass(frozen=True, slots=True)
class Gap:
    """Occurrences that are told as one: `count` of them from `first` to `last`."""

    first: datetime
    last: datetime
    count: int


@dataclass(frozen=True, slots=True)
class Due:
    """The occurrences of one job that have come due: the newest in `occurrences`, ascending, and those before in a `Gap`.

    `cause` says why they are late, when that is known: the daemon was not running, the clock was set, the host slept.
    """

    occurrences: Sequence[Occurrence]
    earlier: Gap | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """An occurrence that is to be started; `is_misfire` says that it is later than the job's grace."""

    occurrence: Occurrence
    is_misfire: bool = False

    @property
    def scheduled_at(self) -> datetime:
        """Return the occurrence's time."""
        return self.occurrence.scheduled_at


@dataclass(frozen=True, slots=True)
class Passed:
    """Occurrences that are not started: skipped on purpose or missed. `why` is one word or sentence about all of them."""

    status: Status
    gap: Gap
    why: str
    window: str | None = None  # the blackout

    def __str__(self) -> str:
        """Return the reason in words, and how many occurrences it is about when it is more than one."""
        text = {PAUSED: "the job is paused", BLACKOUT: f"in {self.window}"}.get(self.why, self.why)
        if self.gap.count == 1:
            return text
        return f"{text} ({self.gap.count} occurrences, {to_text(self.gap.first)} to {to_text(self.gap.last)})"


PAUSED, BLACKOUT = "paused", "blackout"  # reasons of skipped rows
SUPERSEDED = "a newer occurrence was started instead"
TOO_LATE = "later than its misfire_grace"
CHANGED = "its rule was changed before it was started"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the occurrences that are due; each of them is in exactly one place.

    `later` are left undecided on purpose, because catch-ups are spaced: they are to be looked at again.
    """

    start: tuple[Start, ...] = ()
    passed: tuple[Passed, ...] = ()
    later: tuple[Occurrence, ...] = field(default=())


def due_of(trigger: Trigger, after: datetime, now: datetime, most: int = MOST_DUE) -> Due:
    """Return the occurrences later than `after` that start not later than `now`.

    Only the newest `most` are listed; a longer gap is not walked but counted, and where the newest begin is found by
    bisection. (What is scheduled by now but starts later is left out: it is not due.)
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
    """Return the newest occurrence later than `after` that starts by `now`, or `after`: starts are in order."""
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
    """Return how many of a job's due occurrences a decision looks at one by one."""
    if job.trigger is not None and job.trigger.has_blackouts:
        return MOST_DUE
    return job.catch_up_limit if job.catch_up is CatchUp.ALL else 1


def _begin_of_newest(trigger: Trigger, after: datetime, now: datetime, most: int) -> datetime:
    """Return the newest occurrence before the newest `most` ones."""
    low, high = after, now  # more than `most` are later than `low`, not more than `high`
    span = timedelta(minutes=1)
    while now - span > after and trigger.count(now - span, now) <= most:  # near ones first: those are quick to count
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
    """Choose which of the occurrences that have come due are started.

    What is in a blackout is skipped. Of the others, one later than `misfire_grace` is a misfire. Without `catch_up: all` at
    most the newest is started: always with `latest`, only within the grace with `none`; the others are missed, because a
    newer one stands for them. With `all` each is started, one after the other with `catch_up_spacing` between them. What is
    older than `catch_up_age`, and with `all` what is before the newest `catch_up_limit`, is missed.
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
    """Return for each occurrence why it is not started, None for those that are; and why those before them are not."""
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
    """Choose among occurrences that could not be decided about in their turn; newer ones may have been since."""
    why = _newer_stands(job, due.occurrences[-1].scheduled_at, now)
    return pass_all(due, Status.MISSED, why) if why is not None else decide_due(job, due, now)


def one_by_one(decision: Decision, due: Due) -> Decision:
    """Return a decision with an element of its own for each occurrence that is not started."""
    passed = [
        Passed(one.status, Gap(each.scheduled_at, each.scheduled_at, 1), one.why, one.window)
        for one in decision.passed
        for each in due.occurrences
        if one.gap.first <= each.scheduled_at <= one.gap.last
    ]
    return replace(decision, passed=tuple(passed))


def pass_all(due: Due, status: Status, why: str) -> Decision:
    """Return the decision to start nothing of what is due, for one reason such as PAUSED."""
    first = due.earlier.first if due.earlier else due.occurrences[0].scheduled_at
    count = len(due.occurrences) + (due.earlier.count if due.earlier else 0)
    return Decision(passed=(Passed(status, Gap(first, due.occurrences[-1].scheduled_at, count), why),))


def still_starts(job: Job, origin: Origin) -> bool:
    """Return whether a job is still one that what made it due starts: it may have been changed since."""
    events = job.trigger.events if job.trigger is not None else NO_EVENTS
    if origin is Origin.STARTUP:
        return job.enabled and events.at_startup
    return job.enabled and (origin is not Origin.AFTER or bool(events.after))


def why_left_unstarted(job: Job, run: Run, is_paused: bool, is_replanned: bool, now: datetime) -> str | None:
    """Return why a run that was recorded as running, and provably never started, is not started now; None when it is.

    An occurrence follows its job's catch_up policy. A retry goes on as a waiting one would. What was asked for by hand is
    still wanted within the job's misfire_grace. `is_replanned` says that the job's rule was changed since.
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
    """Return why an occurrence is not started any more whose row was long in coming; None when it is."""
    if run.origin is not Origin.SCHEDULE or run.scheduled_at is None or job.trigger is None:
        return None
    if now - run.queued_at <= OVERDUE:
        return None  # as it was decided
    return _fate(job, job.trigger.occurrence_at(run.scheduled_at), now)


def _superseded(job: Job, run: Run, now: datetime) -> str | None:
    """Return that a newer occurrence stands for one that was not started, when its policy says so and there is one."""
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
    """Return why an occurrence cannot be started now, looked at alone; None when it can."""
    if occurrence.skipped is not None:
        return BLACKOUT
    if job.catch_up is CatchUp.NONE and _is_misfire(job, occurrence, now):
        return TOO_LATE
    age = job.catch_up_age_seconds
    if age and now - occurrence.start_at > max(timedelta(seconds=age), OVERDUE):
        return f"older than its catch_up_age of {format_duration(age)}"
    return None


def _grouped(fates: Sequence[tuple[Occurrence, str | None]], earlier: Gap | None, before: str) -> Iterator[Passed]:
    """Yield one element for each unbroken series of occurrences that share their fate; `earlier` joins the first."""
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
    """Return after how many seconds each of `count` overdue jobs is looked at: a tenth of a second apart, all in `seconds`.

    So a herd of catch-ups after a long silence does not start at once, and delays nothing that is on time.
    """
    step = min(CATCH_UP_STEP, seconds / count) if count else 0.0
    return [place * step for place in range(count)]


def decided_after_step_back(trigger: Trigger, decided: datetime, before: datetime, now: datetime) -> datetime:
    """Return through when a job is decided after the clock was set back from `before` to `now`.

    Coming times are looked at again: the ledger refuses those that were started, so a fixed time is never started again,
    and one that a wrong clock only passed over is not lost. A job that follows elapsed time goes on in its rhythm, as in
    Debian's cron(8) "based on the new time immediately", but not sooner than half its period after the last time.
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
    """Return when a job is due after others, of which those in `ends` ended as it wants since it was due last; or None."""
    seen = [ends[job_id] for job_id in after.jobs if job_id in ends]
    if not seen or (after.needs_all and len(seen) < len(after.jobs)):
        return None
    return max(seen)


def is_wanted(after: After, status: Status) -> bool:
    """Return whether the end of another job is one of those that a job starts after."""
    if after.when is When.ALWAYS:
        return True
    return (status is Status.SUCCESS) is (after.when is When.SUCCESS) and status is not Status.CANCELLED


def pause_is_over(until: datetime | None, now: datetime) -> bool:
    """Return whether a pause that was set until `until` has ended."""
    return until is not None and now >= until
