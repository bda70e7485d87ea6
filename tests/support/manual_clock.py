"""A clock for tests, which moves only when a test moves it."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta


class ManualClock:
    """A clock that a test advances or steps; each movement wakes the threads that wait on it."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._monotonic = 0.0
        self._slept = 0.0
        self._lock = threading.Lock()
        self._waiting: list[threading.Event] = []

    def now(self) -> datetime:
        """Return the wall time."""
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        """Return the seconds advanced so far; `step` does not change them."""
        with self._lock:
            return self._monotonic

    def boottime(self) -> float:
        """Return the seconds advanced and slept so far."""
        with self._lock:
            return self._monotonic + self._slept

    def sleep(self, seconds: float) -> None:
        """Simulate a suspended host: wall time and boot time advance, monotonic time does not."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._slept += seconds
            self._wake()

    def advance(self, seconds: float) -> None:
        """Advance all clocks by `seconds`."""
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
