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
    """A step of a loop, used as `with step: …`: an Exception is logged and suppressed, so that the loop continues.

    `trouble` describes the last error while the step fails.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._failures = FailureLog(name, clock)

    @property
    def trouble(self) -> str | None:
        """The error of the last call, or None when it succeeded."""
        return self._failures.trouble

    @property
    def pause_seconds(self) -> float:
        """The pause before the next call in seconds, 0.0 after a success."""
        return self._failures.pause_seconds

    def __enter__(self) -> None:
        """Begin a call."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        """End a call. An Exception is logged and suppressed; other exceptions, which end the process, propagate."""
        if error is None:
            self.succeeded()
        elif isinstance(error, Exception):
            self.failed(error)
        return isinstance(error, Exception)

    def succeeded(self) -> None:
        """Record a success."""
        if (text := self._failures.succeeded()) is not None:
            log.info("%s", text)

    def failed(self, error: Exception) -> None:
        """Record and log a failure."""
        if (text := self._failures.failed(error)) is not None:
            log.error("%s", text, exc_info=error)


class StepSequence:
    """The steps of one turn of a loop, by name: the failure of one does not prevent the others."""

    def __init__(self, clock: Clock, acts: Mapping[str, Callable[[datetime], None]]) -> None:
        self._steps = [(GuardedStep(name, clock), act) for name, act in acts.items()]

    def __call__(self, now: datetime) -> None:
        """Perform all steps."""
        for step, act in self._steps:
            with step:
                act(now)

    @property
    def trouble(self) -> str | None:
        """The errors of the steps that fail, or None."""
        return "; ".join(step.trouble for step, _ in self._steps if step.trouble is not None) or None
