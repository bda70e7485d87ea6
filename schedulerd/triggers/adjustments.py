"""Adjustments of a rule: `not_before`, `not_after`, `jitter`, `spread` and `blackout`.

The time that the rule computed stays the identity of an occurrence, so that it is the same on every node and after each
change of these settings. Adjustments change when it starts. Both times ascend: an occurrence is never delayed as far as
the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..core.models import EPOCH, MICROSECOND, to_micros, to_text
from ..core.trigger import Events, Occurrence
from ..core.units import format_duration
from .base import Rule
from .blackouts import Blackout

MOST_BLACKOUTS = 1000  # consecutive blackouts that a search for a start passes before it gives up
FURTHEST_BACK = timedelta(days=20_000)
FEW = 4  # occurrences that are tried in turn before a bisection
_MILLISECOND = 1000  # microseconds: delays are whole milliseconds


@dataclass(frozen=True, slots=True)
class AdjustedRule(Rule):
    """`rule` with bounds, delays and blackouts. Durations are seconds.

    `seed` is derived from the job: the jitter of an occurrence is the same on every node. `host` is derived from node and
    job: each host has its own share of `spread_seconds`, the same for all occurrences.
    """

    rule: Rule
    not_before: datetime | None = None
    not_after: datetime | None = None
    jitter_seconds: float = 0.0
    spread_seconds: float = 0.0
    blackout: Blackout | None = None
    seed: str = ""
    host: str = ""

    @property
    def kind(self) -> str:
        """Return the kind of the rule."""
        return self.rule.kind

    @property
    def text(self) -> str:
        """Return the rule with all adjustments."""
        parts = [self.rule.text]
        for name, instant in (("not before", self.not_before), ("not after", self.not_after)):
            parts += [f"{name} {to_text(instant)}"] if instant else []
        for name, seconds in (("jitter", self.jitter_seconds), ("spread", self.spread_seconds)):
            parts += [f"{name} {seconds:.15g}s"] if seconds else []
        parts += [self.blackout.text] if self.blackout else []
        return ", ".join(parts)

    @property
    def rhythm(self) -> Rule | None:
        """Return the part of the rule that follows elapsed time."""
        return self.rule.rhythm

    @property
    def waits_for_end(self) -> bool:
        """Return whether the rule counts from the end of the last run."""
        return self.rule.waits_for_end

    @property
    def events(self) -> Events:
        """Return the events of the rule."""
        return self.rule.events

    @property
    def moves_starts(self) -> bool:
        """Return whether an occurrence may start later than it is scheduled."""
        return bool(self._reach) or self._defers

    @property
    def has_blackouts(self) -> bool:
        """Return whether there are blackouts."""
        return self.blackout is not None

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first start strictly later than `instant`, or None, also when MOST_BLACKOUTS follow each other."""
        scheduled_at = self._scheduled_after(self.settled_by(instant))
        for _ in range(MOST_BLACKOUTS):
            if scheduled_at is None:
                return None
            moved, free = self._moved(scheduled_at)
            if free is None or free == moved or self._defers:
                return free
            scheduled_at = self._scheduled_after(self._last_before(free, scheduled_at))
        return None

    def settled_by(self, instant: datetime) -> datetime:
        """Return the latest time up to which each occurrence starts, or is skipped, by `instant`."""
        low, back = instant, timedelta(hours=1)
        while self._defers and self.free_at(low) != low and back < FURTHEST_BACK:
            low, back = _earlier(instant, back), back * 2  # a deferred occurrence may be as old as the begin of the blackout
        low = _earlier(low, self._reach)
        return low if low == instant else self._bisected(low, instant, lambda start: start <= instant)

    def _last_before(self, instant: datetime, scheduled_at: datetime) -> datetime:
        """Return a time up to which each occurrence from `scheduled_at` on is moved to before `instant`."""
        if not self._reach:
            return instant - MICROSECOND
        return self._bisected(scheduled_at, instant, lambda start: start < instant)

    def _bisected(self, low: datetime, high: datetime, is_early: Callable[[datetime], bool]) -> datetime:
        """Return the latest occurrence in (low, high] whose start is early, or `low`. Starts ascend with occurrences."""
        for _ in range(FEW):  # usually there is only one
            found = self.occurrence_after(low)
            if found is None or found.scheduled_at > high or not is_early(found.start_at):
                return low
            low = found.scheduled_at
        while high - low > MICROSECOND:
            middle = low + (high - low) // 2
            found = self.occurrence_after(middle)
            if found is not None and found.scheduled_at <= high and is_early(found.start_at):
                low = found.scheduled_at
            else:
                high = middle
        return low

    def occurrence_after(self, scheduled_at: datetime) -> Occurrence | None:
        """Return the first occurrence strictly later than `scheduled_at`."""
        found = self._scheduled_after(scheduled_at)
        return None if found is None else self.occurrence_at(found)

    def occurrence_at(self, scheduled_at: datetime) -> Occurrence:
        """Return the occurrence with its start, or the blackout that forbids it, and all reasons."""
        moved, free = self._moved(scheduled_at)
        reasons = [*self.rule.reasons(scheduled_at)]
        if moved > scheduled_at:
            names = [name for name, is_set in (("jitter", self.jitter_seconds), ("spread", self.spread_seconds)) if is_set]
            reasons.append(f"delayed {format_duration((moved - scheduled_at).total_seconds())} by {' and '.join(names)}")
        if free == moved:
            return Occurrence(scheduled_at, moved, tuple(reasons))
        window = f"blackout {self.blackout.covering(moved) if self.blackout else ''}"
        if self._defers and free is not None:
            return Occurrence(scheduled_at, free, (*reasons, f"deferred to the end of {window}"))
        return Occurrence(scheduled_at, moved, (*reasons, f"in {window}"), window)

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many occurrences are in (after, upto], including those in blackouts."""
        if self.not_before is not None:
            after = max(after, self.not_before - MICROSECOND)
        if self.not_after is not None:
            upto = min(upto, self.not_after)
        return self.rule.count(after, upto) if after < upto else 0

    def free_at(self, instant: datetime) -> datetime | None:
        """Return the first moment from `instant` on outside the blackout."""
        return instant if self.blackout is None else self.blackout.free_at(instant)

    def why_not(self, instant: datetime) -> str | None:
        """Return which bound, or which part of the rule, prevents an occurrence at `instant`."""
        if self.not_before is not None and instant < self.not_before:
            return f"it is not due before {to_text(self.not_before)} (not_before)"
        if self.not_after is not None and instant > self.not_after:
            return f"it is not due after {to_text(self.not_after)} (not_after)"
        return self.rule.why_not(instant)

    @property
    def _defers(self) -> bool:
        return self.blackout is not None and self.blackout.defers

    @property
    def _reach(self) -> timedelta:
        return timedelta(seconds=self.jitter_seconds + self.spread_seconds)

    def _scheduled_after(self, after: datetime) -> datetime | None:
        if self.not_before is not None:
            after = max(after, self.not_before - MICROSECOND)
        at = self.rule.next_after(after)
        return None if at is None or (self.not_after is not None and at > self.not_after) else at

    def _moved(self, scheduled_at: datetime) -> tuple[datetime, datetime | None]:
        """Return the delayed time of an occurrence, and the first moment from there on outside the blackout."""
        moved = scheduled_at + self._delay(scheduled_at)
        return moved, self.free_at(moved)

    def _delay(self, scheduled_at: datetime) -> timedelta:
        """Return the delay of an occurrence, reduced in proportion where the next occurrence is nearer than the maximum."""
        reach = self._reach
        if not reach:
            return reach
        micros = self.jitter_seconds * 1e6 * _share(f"{self.seed}/{to_micros(scheduled_at)}")
        micros += self.spread_seconds * 1e6 * _share(self.host)
        following = self.rule.next_after(scheduled_at)
        if following is not None and following - scheduled_at < reach:
            micros *= (following - scheduled_at) / reach
        return timedelta(microseconds=int(micros) // _MILLISECOND * _MILLISECOND)


def _earlier(instant: datetime, back: timedelta) -> datetime:
    return max(EPOCH, instant - back) if instant > EPOCH else instant


def _share(text: str) -> float:
    """Return a pseudo-random number in [0, 1) that depends on the text only."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / (1 << 48)
