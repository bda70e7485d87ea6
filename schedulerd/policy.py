"""The rules about what becomes of due times, overlaps, pauses and old backups.

Pure: values in, decisions out; no clock, no store, no thread. `scheduler` asks, then acts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice

from .model import CatchUp, Job, Overlap, Trigger, to_text

MOST_DUE = 1000  # occurrences of one job that are looked at in one decision; the rest is told as a count


@dataclass(frozen=True, slots=True)
class Due:
    """The occurrences of one job that have come due: all of them in `times`, ascending, unless there were too many.

    When there are more than MOST_DUE, `times` are the newest ones and `earlier` counts those before, from `first` on.
    """

    times: Sequence[datetime]
    earlier: int = 0
    first: datetime | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """An occurrence that is to be started; `is_misfire` says that it is later than the job's grace."""

    scheduled_at: datetime
    is_misfire: bool


@dataclass(frozen=True, slots=True)
class Missed:
    """Occurrences that are not started any more: `count` of them from `first` to `last`, and why."""

    first: datetime
    last: datetime
    count: int
    reason: str

    def __str__(self) -> str:
        """Return the reason, and how many occurrences it is about when it is more than one."""
        if self.count == 1:
            return self.reason
        return f"{self.reason} ({self.count} occurrences, {to_text(self.first)} to {to_text(self.last)})"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the occurrences that are due; each of them is in exactly one place."""

    start: tuple[Start, ...]
    missed: Missed | None = None


def due_times(trigger: Trigger, after: datetime, now: datetime) -> Due:
    """Return the occurrences later than `after` and not later than `now`.

    A gap of more than MOST_DUE occurrences is not walked in full. The newest of them, 1 to MOST_DUE, are found by
    bisection; how many lie before is estimated from the density of the first ones. `first` is exact.
    """
    times = list(islice(_times(trigger, after, now), MOST_DUE + 1))
    if len(times) <= MOST_DUE:
        return Due(times)
    first, each = times[0], (times[-1] - times[0]) / (len(times) - 1)
    low, high = after, now  # too many later than `low`; `high` is where none may be left
    since = after
    while not 1 <= len(times) <= MOST_DUE:
        low, high = (since, high) if times else (low, since)
        since = low + (high - low) / 2
        times = list(islice(_times(trigger, since, now), MOST_DUE + 1))
    return Due(times, max(1, round((since - after) / each)), first)


def _times(trigger: Trigger, after: datetime, now: datetime) -> Iterable[datetime]:
    at = trigger.next_after(after)
    while at is not None and at <= now:
        yield at
        at = trigger.next_after(at)


def decide_due(job: Job, due: Due, now: datetime) -> Decision:
    """Choose which of the occurrences that have come due are started.

    An occurrence later than `misfire_grace` is a misfire. `catch_up: all` starts every one. Otherwise at most the newest
    is started: always with `latest`, only within the grace with `none`; the others are missed, because a newer one
    stands for them. So a daemon that was away does not start a flood.
    """
    grace = timedelta(seconds=job.misfire_grace_seconds)
    starts = [Start(at, now - at > grace) for at in due.times]
    if job.catch_up is CatchUp.ALL:
        kept = starts
    else:
        kept = [start for start in starts[-1:] if job.catch_up is CatchUp.LATEST or not start.is_misfire]
    lost = due.times[: len(starts) - len(kept)]
    count = len(lost) + due.earlier
    if not count:
        return Decision(tuple(kept))
    last = lost[-1] if lost else due.times[0]
    reason = "a newer occurrence was started instead" if kept else "later than its misfire_grace"
    return Decision(tuple(kept), Missed(due.first or due.times[0], last, count, reason))


class Admission(StrEnum):
    """What the overlap policy says of a run that wants to start now."""

    START = "start"
    QUEUE = "queue"
    SKIP = "skip"


MOST_QUEUED = 100  # runs of one job that wait for their turn; more are skipped


def admit(overlap: Overlap, running: int, queued: int) -> Admission:
    """Return what becomes of a run of a job of which `running` runs run and `queued` ones wait."""
    if overlap is Overlap.ALLOW or (not running and not queued):
        return Admission.START
    if overlap is Overlap.QUEUE and queued < MOST_QUEUED:
        return Admission.QUEUE
    return Admission.SKIP


def pause_is_over(until: datetime | None, now: datetime) -> bool:
    """Return whether a pause that was set until `until` has ended."""
    return until is not None and now >= until


_PERIODS: Mapping[str, Callable[[datetime], tuple[int, ...]]] = {
    "hourly": lambda at: (at.year, at.month, at.day, at.hour),
    "daily": lambda at: (at.year, at.month, at.day),
    "weekly": lambda at: tuple(at.isocalendar()[:2]),
    "monthly": lambda at: (at.year, at.month),
    "yearly": lambda at: (at.year,),
}
KEEP_PERIODS = ("last", *_PERIODS)


def expired(made: Sequence[datetime], keep: Mapping[str, int]) -> list[datetime]:
    """Return which of the backups made at `made` may go, by grandfather, father and son.

    `keep` says how many of the newest (`last`) and how many of the newest per hour, day, week, month and year stay. Each
    period is stood for by the last backup in it. The newest one always stays, and without `keep` all of them do.
    """
    newest_first = sorted(made, reverse=True)
    if not keep or not newest_first:
        return []
    stay = {newest_first[0], *newest_first[: keep.get("last", 0)]}
    for name, period in _PERIODS.items():
        seen: dict[tuple[int, ...], datetime] = {}
        for at in newest_first:
            seen.setdefault(period(at), at)
        stay.update(list(seen.values())[: keep.get(name, 0)])
    return [at for at in newest_first if at not in stay]
