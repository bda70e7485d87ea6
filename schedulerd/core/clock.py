"""Access to clocks: the only module that reads one. All others receive a `Clock` or an instant.

Wall time (`now`) decides when a job is due. Monotonic time (`monotonic`) measures durations: the wall clock may be
stepped, so a duration is never the difference of two wall times.
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
SMALLEST_JUMP = 2.0  # seconds: smaller steps are corrections by NTP, or a leap second
READINGS = 10  # attempts to read all clocks at the same moment
LONGEST_WAIT = 1.0  # seconds: the longest time until a step of the wall clock is detected


class Clock(Protocol):
    """A source of time."""

    def now(self) -> datetime:
        """Return the wall time as an aware UTC datetime."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that is never stepped and stops while the host sleeps."""
        ...

    def boottime(self) -> float:
        """Return seconds on a clock that is never stepped and continues while the host sleeps."""
        ...

    def wait(self, wakeup: threading.Event, until: datetime | None) -> None:
        """Return when the wall time reaches `until`, when `wakeup` is set, or after LONGEST_WAIT.

        May return early: the caller compares `now()` again. With `until=None`, only the other two conditions apply.
        """
        ...


class SystemClock:
    """The clocks of the host."""

    def now(self) -> datetime:
        """Return the wall time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since an unspecified start."""
        return time.monotonic()

    def boottime(self) -> float:
        """Return seconds since the host was started, including sleep (clock_gettime(2), CLOCK_BOOTTIME)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wait(self, wakeup: threading.Event, until: datetime | None) -> None:
        """Wait for an absolute wall time in slices of at most LONGEST_WAIT, so that a step of the clock is noticed."""
        seconds = LONGEST_WAIT
        if until is not None:
            seconds = min(seconds, (until - self.now()).total_seconds())
        if seconds > 0:
            wakeup.wait(seconds)


@dataclass(frozen=True, slots=True)
class Jump:
    """A step of the wall clock from `before` to `now`.

    `before` is the wall time expected from the elapsed time. With `slept`, the host was asleep in between.
    """

    before: datetime
    now: datetime
    slept: bool = False

    @property
    def seconds(self) -> float:
        """Return the size of the step in seconds, negative when the clock was set back."""
        return (self.now - self.before).total_seconds()

    def __str__(self) -> str:
        """Return a description for logs and explanations."""
        if self.slept:
            return f"the host slept for {format_duration(self.seconds)}"
        direction = "forward" if self.seconds > 0 else "back"
        return f"the clock was set {direction} by {format_duration(abs(self.seconds))}"


class ClockJumpDetector:
    """Detects steps of the wall clock by comparing it with the monotonic and the boot clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = self._read()

    def poll(self) -> Jump | None:
        """Return the step of the wall clock since the last call, or None when it was less than SMALLEST_JUMP."""
        (wall, monotonic, boottime), self._last = self._last, self._read()
        now, passed, real = self._last[0], self._last[1] - monotonic, self._last[2] - boottime
        before = wall + timedelta(seconds=passed)
        if abs((now - before).total_seconds()) < SMALLEST_JUMP:
            return None
        return Jump(before, now, slept=abs((now - wall).total_seconds() - real) < SMALLEST_JUMP)

    def _read(self) -> tuple[datetime, float, float]:
        """Read the three clocks, and again when this thread was suspended in between, which would look like a step."""
        for _ in range(READINGS - 1):
            start, found = self._clock.monotonic(), self._read_once()
            if self._clock.monotonic() - start < SMALLEST_JUMP / 10:
                return found
        return self._read_once()

    def _read_once(self) -> tuple[datetime, float, float]:
        return self._clock.now(), self._clock.monotonic(), self._clock.boottime()


class SteadyTime:
    """Wall time for decisions that cannot be undone. A clock set far ahead is believed only after DOUBTED_SECONDS.

    Until then the time continues from its last value. A clock set back is believed at once. Thread-safe.
    """

    def __init__(self, clock: Clock, known: datetime | None = None) -> None:
        """`known` is the latest time recorded before this start, if any."""
        self._clock = clock
        self._lock = threading.Lock()
        self._wall, self._boot = known or clock.now(), clock.boottime()
        self._doubted_since: float | None = None

    def poll(self) -> None:
        """Compare the clocks, so that the delay of DOUBTED_SECONDS begins as soon as the clock is far ahead."""
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
