"""Failures of an operation that is repeated: which of them to log, and whether it fails now.

The first failure is logged, then one a minute, one in ten minutes, one an hour, each with the number of failures in
between. An operation that fails at each or at every other call does not fill the log.
"""

from __future__ import annotations

from .clock import Clock
from .units import counted

LOG_EVERY = (60.0, 600.0, 3600.0)  # seconds between two lines; starts again after the longest one without a failure
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0


class FailureLog:
    """The failures of one operation, whose name `part` begins each line."""

    def __init__(self, part: str, clock: Clock) -> None:
        self.part = part
        self.in_a_row = 0
        self.trouble: str | None = None  # the last error since the last success
        self._clock = clock
        self._unlogged = 0
        self._lines = 0
        self._next_at = 0.0
        self._failed_at = 0.0
        self._is_logged = False  # whether the current failure was logged

    @property
    def pause_seconds(self) -> float:
        """The pause before the next attempt, in seconds; it grows with each failure in a row."""
        return min(FIRST_PAUSE_SECONDS * 2.0 ** min(self.in_a_row - 1, 10), LONGEST_PAUSE_SECONDS) if self.in_a_row else 0.0

    def failed(self, error: BaseException) -> str | None:
        """Count a failure; return the line to log, or None."""
        now = self._clock.monotonic()
        if now - self._failed_at > LOG_EVERY[-1]:
            self._lines = 0
        self.in_a_row, self._failed_at = self.in_a_row + 1, now
        self.trouble = f"{self.part}: {type(error).__name__}: {error}"
        if self._lines and now < self._next_at:
            self._unlogged += 1
            return None
        self._next_at = now + LOG_EVERY[min(self._lines, len(LOG_EVERY) - 1)]
        more, self._unlogged = self._unlogged, 0
        self._lines += 1
        self._is_logged = True
        since = f", {counted(more, 'time')} more since the last message" if more else ""
        return f"{self.part}: unexpected error, continuing{since}"

    def succeeded(self) -> str | None:
        """Count a success; return the line to log, or None."""
        if self.trouble is None:
            return None
        failures, self.in_a_row, self.trouble = self.in_a_row, 0, None
        was_logged, self._is_logged = self._is_logged, False
        return f"{self.part}: works again after {counted(failures, 'failure')} in a row" if was_logged else None
