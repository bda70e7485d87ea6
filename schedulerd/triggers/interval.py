"""Intervals of elapsed time, anchored to 1970-01-01 UTC.

The anchor is a constant, so neither a restart nor a reload nor another node shifts the times, and `every: 10m` is due at
:00, :10, :20. Local midnights and daylight saving are the business of `cron`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..durations import format_duration
from ..errors import TriggerError
from ..model import from_micros, to_micros

SHORTEST = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class IntervalTrigger:
    """Due each `seconds`, counted from 1970-01-01 UTC."""

    seconds: float

    def __post_init__(self) -> None:
        """Raise TriggerError when the interval is too short."""
        if self.seconds < SHORTEST:
            raise TriggerError("every", format_duration(self.seconds), "the shortest interval is 1s")

    @property
    def kind(self) -> str:
        """Return `interval`."""
        return "interval"

    @property
    def text(self) -> str:
        """Return the interval."""
        return f"every: {self.seconds:g}s"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the next multiple of the interval strictly later than `instant`."""
        step = round(self.seconds * 1_000_000)
        return from_micros(to_micros(instant) // step * step + step)
