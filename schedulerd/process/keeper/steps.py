"""The steps of the keeper's round: an error in one does not stop the others, and is logged at a bounded rate."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ...core.clock import Clock
from ...core.failures import FailureLog

LASTS_SECONDS = 60.0  # a step counts as failing for this long after its last error
LONGEST_PAUSE = 0.5  # runs end meanwhile


class Steps:
    """Guards steps by name. Errors are written to stderr, which is the file `errors` in the folder of the keeper."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[str, FailureLog] = {}
        self._failed_at: dict[str, float] = {}
        self._has_failed = False

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Run a step and catch its error."""
        try:
            yield
        except Exception as error:  # the keeper must not exit: the daemon would never learn the ends of its runs
            self._fail(name, error)
        else:
            if self._failures:
                self._succeed(name)

    def _fail(self, name: str, error: Exception) -> None:
        self._has_failed = True
        self._failed_at[name] = self._clock.monotonic()
        line = self._failures.setdefault(name, FailureLog(name, self._clock)).failed(error)
        if line is not None:
            sys.stderr.write(f"{self._clock.now():%Y-%m-%d %H:%M:%S} {line}\n")
            traceback.print_exception(error)

    def _succeed(self, name: str) -> None:
        known = self._failures.get(name)
        if known is not None:
            known.succeeded()

    def pause_seconds(self) -> float:
        """Return the seconds to wait after a round, 0.0 when no step has failed."""
        has_failed, self._has_failed = self._has_failed, False
        return min(LONGEST_PAUSE, max(each.pause_seconds for each in self._failures.values())) if has_failed else 0.0

    @property
    def failing(self) -> list[str]:
        """The steps that failed recently, in words that stay the same while they do."""
        now = self._clock.monotonic()
        return [
            f"{name}: unexpected error, continuing (see the file errors in its folder)"
            for name, at in self._failed_at.items()
            if now - at < LASTS_SECONDS
        ]
