"""Intervals of elapsed time, anchored to 1970-01-01 UTC or counted from the end of the last run.

The anchor is constant, so that no restart, reload or other node shifts the times: `every: 10m` is due at :00, :10, :20.
Use `cron` for times of a time zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..core.errors import TriggerError
from ..core.models import from_micros, to_micros
from ..core.units import format_duration
from .base import Rule

SHORTEST = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class IntervalTrigger(Rule):
    """Due every `seconds` from 1970-01-01 UTC, or with `from_end`, from the end of the last run."""

    seconds: float
    from_end: bool = False

    def __post_init__(self) -> None:
        """Raise TriggerError when the interval is shorter than SHORTEST."""
        if self.seconds < SHORTEST:
            raise TriggerError("every", format_duration(self.seconds), "the shortest interval is 1s")

    @property
    def kind(self) -> str:
        """Return `interval`."""
        return "interval"

    @property
    def text(self) -> str:
        """Return the interval."""
        return f"every: {self.seconds:.15g}s" + (" after finish" if self.from_end else "")

    @property
    def rhythm(self) -> Rule | None:
        """Return the rule itself, or None with `from_end`: it continues after a step of the clock anyway."""
        return None if self.from_end else self

    @property
    def waits_for_end(self) -> bool:
        """Return whether times are counted from the end of the last run."""
        return self.from_end

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the next multiple of the interval, or with `from_end` the end `instant` plus the interval."""
        step, micros = self._step, to_micros(instant)
        return from_micros(micros + step if self.from_end else micros // step * step + step)

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many multiples of the interval are in (after, upto]."""
        if self.from_end:
            return int(self._step <= to_micros(upto) - to_micros(after))
        return max(0, to_micros(upto) // self._step - to_micros(after) // self._step)

    @property
    def _step(self) -> int:
        return round(self.seconds * 1_000_000)
