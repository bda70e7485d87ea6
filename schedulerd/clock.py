"""The only file that reads a clock: every other one is handed a `Clock`, or the time itself.

Wall time (`now`) says when a job is due, monotonic time (`monotonic`) says how long something took; the wall clock may be
stepped, so no duration is ever a difference of two walls.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

LONGEST_WAIT = 1.0  # seconds: a step of the wall clock is noticed within this time


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """Return the wall time as an aware UTC datetime."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that is never stepped."""
        ...

    def wait(self, wakeup: threading.Event, until: datetime | None) -> None:
        """Return when the wall time reaches `until`, when `wakeup` is set, or after at most a second.

        May return early; the caller looks at `now()` again. `until=None` waits for the other two.
        """
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Return the wall time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since some fixed moment."""
        return time.monotonic()

    def wait(self, wakeup: threading.Event, until: datetime | None) -> None:
        """Wait on the absolute wall time, in slices, so that a stepped clock does not make us oversleep."""
        seconds = LONGEST_WAIT
        if until is not None:
            seconds = min(seconds, (until - self.now()).total_seconds())
        if seconds > 0:
            wakeup.wait(seconds)


class ManualClock:
    """A clock for tests: it stands still until it is told to advance, and wakes whoever waits on it."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._monotonic = 0.0
        self._lock = threading.Lock()
        self._waiting: list[threading.Event] = []

    def now(self) -> datetime:
        """Return the time that was set."""
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        """Return the seconds that were advanced so far; a step of the wall does not change them."""
        with self._lock:
            return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._monotonic += seconds
            self._wake()

    def step(self, to: datetime) -> None:
        """Set the wall clock, forward or back, as an operator or NTP would."""
        with self._lock:
            self._now = to
            self._wake()

    def wait(self, wakeup: threading.Event, until: datetime | None) -> None:
        """Wait for the next advance, step or wakeup."""
        with self._lock:
            if until is not None and self._now >= until:
                return
            self._waiting.append(wakeup)
        wakeup.wait()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            event.set()
