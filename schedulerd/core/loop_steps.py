"""Steps of the daemon's loops, isolated from each other: an error of one is logged at a limited rate, the others go on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType

from .clock import Clock
from .failures import FailureLog

log = logging.getLogger(__name__)


class GuardedStep:
    """One part, used as `with part: …`; the loop goes on behind it, whatever happened, and `trouble` tells of it."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._failures = FailureLog(name, clock)

    @property
    def trouble(self) -> str | None:
        """What the part failed with at its last call, in words, or None."""
        return self._failures.trouble

    @property
    def pause_seconds(self) -> float:
        """How long to wait before it is called again; 0.0 when its last call went well."""
        return self._failures.pause_seconds

    def __enter__(self) -> None:
        """Begin a call."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        """Note how the call ended. An error ends here; what is no Exception (a request to end the process) goes on."""
        if error is None:
            self.succeeded()
        elif isinstance(error, Exception):
            self.failed(error)
        return isinstance(error, Exception)

    def succeeded(self) -> None:
        """Note that the part works."""
        if (text := self._failures.succeeded()) is not None:
            log.info("%s", text)

    def failed(self, error: Exception) -> None:
        """Note that the part failed."""
        if (text := self._failures.failed(error)) is not None:
            log.error("%s", text, exc_info=error)


class StepSequence:
    """What is to be done at each turn of a loop, by name: one that fails keeps no other from its turn."""

    def __init__(self, clock: Clock, acts: Mapping[str, Callable[[datetime], None]]) -> None:
        self._parts = [(GuardedStep(name, clock), act) for name, act in acts.items()]

    def __call__(self, now: datetime) -> None:
        """Do all of it."""
        for part, act in self._parts:
            with part:
                act(now)

    @property
    def trouble(self) -> str | None:
        """What fails, in words, or None."""
        return "; ".join(part.trouble for part, _ in self._parts if part.trouble is not None) or None
