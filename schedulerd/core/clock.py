"""The only file that reads a clock: every other one is handed a `Clock`, or the time itself.

Wall time (`now`) says when a job is due, monotonic time (`monotonic`) says how long something took; the wall clock may be
stepped, so no duration is ever a difference of two walls.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from .units import format_duration

DOUBTED_AHEAD = timedelta(days=1)
DOUBTED_SECONDS = 12 * 3600.0
SMALLEST_JUMP = 2.0  # seconds: less is what NTP corrects, and a leap second
READINGS = 10  # tries to read all clocks at the same moment
LONGEST_WAIT = 1.0  # seconds: a step of the wall clock is noticed within this time


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """Return the wall time as an aware UTC datetime."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that is never stepped."""
        ...

    def boottime(self) -> float:
        """Return seconds on a clock that is never stepped and that goes on while the host sleeps."""
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

    def boottime(self) -> float:
        """Return seconds since the host was started, asleep or awake (clock_gettime(2), CLOCK_BOOTTIME)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wait(self, wakeup: threading.Event, until: datetime | None) -> None:
        """Wait on the absolute wall time, in slices, so that a stepped clock does not make us oversleep."""
        seconds = LONGEST_WAIT
        if until is not None:
            seconds = min(seconds, (until - self.now()).total_seconds())
        if seconds > 0:
            wakeup.wait(seconds)


@dataclass(frozen=True, slots=True)
class Jump:
    """The wall clock went from `before` to `now` without that time passing; `slept` says that the host was asleep."""

    before: datetime
    now: datetime
    slept: bool = False

    @property
    def seconds(self) -> float:
        """Return by how much: above 0 forward, below 0 back."""
        return (self.now - self.before).total_seconds()

    def __str__(self) -> str:
        """Return what happened, in words."""
        if self.slept:
            return f"the host slept for {format_duration(self.seconds)}"
        direction = "forward" if self.seconds > 0 else "back"
        return f"the clock was set {direction} by {format_duration(abs(self.seconds))}"


class ClockJumpDetector:
    """Notices when the wall clock and the others part."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = self._read()

    def poll(self) -> Jump | None:
        """Return what the wall clock did since the last call, when it was more than SMALLEST_JUMP."""
        (wall, monotonic, boottime), self._last = self._last, self._read()
        now, passed, real = self._last[0], self._last[1] - monotonic, self._last[2] - boottime
        before = wall + timedelta(seconds=passed)
        if abs((now - before).total_seconds()) < SMALLEST_JUMP:
            return None
        return Jump(before, now, slept=abs((now - wall).total_seconds() - real) < SMALLEST_JUMP)

    def _read(self) -> tuple[datetime, float, float]:
        """Read the three clocks together: again when this thread was held up in between, which would look like a jump."""
        for _ in range(READINGS - 1):
            start, found = self._clock.monotonic(), self._read_once()
            if self._clock.monotonic() - start < SMALLEST_JUMP / 10:
                return found
        return self._read_once()

    def _read_once(self) -> tuple[datetime, float, float]:
        return self._clock.now(), self._clock.monotonic(), self._clock.boottime()


class SteadyTime:
    """The wall time for what cannot be undone: a clock that went far ahead is believed after DOUBTED_SECONDS, not at once.

    Until then the time goes on from where it was. A clock that was set back is believed. For all threads.
    """

    def __init__(self, clock: Clock, known: datetime | None = None) -> None:
        """`known` is the last time before now that is known of, from before the start."""
        self._clock = clock
        self._lock = threading.Lock()
        self._wall, self._boot = known or clock.now(), clock.boottime()
        self._doubted_since: float | None = None

    def poll(self) -> None:
        """Notice whether the clock is far ahead: it is believed so long after that."""
        self.now()

    def now(self) -> datetime:
        """Return the time."""
        with self._lock:
            wall, boot = self._clock.now(), self._clock.boottime()
            expected = self._wall + timedelta(seconds=boot - self._boot)
            if wall - expected < DOUBTED_AHEAD:
                self._doubted_since = None
            elif self._doubted_since is None:
                self._doubted_since = boot
            if self._doubted_since is not None and boot - self._doubted_since < DOUBTED_SECONDS:
                return expected
            self._wall, self._boot, self._doubted_since = wall, boot, None
            return wall
