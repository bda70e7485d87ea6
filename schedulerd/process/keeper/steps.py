"""The steps of the keeper's round: what fails in one keeps no other from its turn, and is written down boundedly."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ...core.clock import Clock
from ...core.failures import FailureLog

LASTS_SECONDS = 60.0  # after its last failure a step counts as one that fails
LONGEST_PAUSE = 0.5  # runs end meanwhile


class Steps:
    """Guards steps by name; their errors go to stderr, which is the file `errors` of the keeper's folder."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[str, FailureLog] = {}
        self._failed_at: dict[str, float] = {}
        self._has_failed = False

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Do a step; an error ends with it."""
        try:
            yield
        except Exception as error:  # the keeper must not end: no run that it started would ever end for the daemon
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
        """Return for how long to wait after a round, 0.0 when nothing in it has failed."""
        has_failed, self._has_failed = self._has_failed, False
        return min(LONGEST_PAUSE, max(each.pause_seconds for each in self._failures.values())) if has_failed else 0.0

    @property
    def failing(self) -> list[str]:
        """The steps that have failed lately, in words that stay the same while they do."""
        now = self._clock.monotonic()
        return [
            f"{name}: unexpected error, continuing (see the file errors in its folder)"
            for name, at in self._failed_at.items()
            if now - at < LASTS_SECONDS
        ]
