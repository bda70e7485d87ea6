"""Probes of the services that the host and its jobs depend on: a file for each kind of target.

`runner.py` calls them in parallel. A probe returns an `Answer`: `status` unless it is healthy, `error` with the reason, and
figures. An exception means that the target is unhealthy. A probe may wait until its timeout; then the runner interrupts it
(`Cut`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import SchedulerdError
from ...secrets.urls import mask_userinfo

HEALTHY, DEGRADED, UNHEALTHY, NOT_CONFIGURED = "healthy", "degraded", "unhealthy", "not_configured"
WORST_FIRST = (UNHEALTHY, DEGRADED, HEALTHY)

Answer = dict[str, Any]


class ProbeError(SchedulerdError):
    """A target could not be probed."""


@dataclass
class Cut:
    """Interrupts a waiting probe. The probe sets `function` when there is an operation to interrupt."""

    function: Callable[[], None] | None = field(default=None)

    def __call__(self) -> None:
        """Interrupt the probe."""
        if self.function is not None:
            self.function()


Probe = Callable[[Cut], Answer]


def error_text(error: Exception) -> str:
    """Return the error of any driver on one line. Passwords in URLs are masked."""
    return (mask_userinfo(" ".join(str(error).split())) or type(error).__name__)[:500]


def graded(answer: Answer, *doubts: str | None) -> Answer:
    """Return figures as an answer: degraded, with the reasons, if there are any doubts, else healthy."""
    found = [doubt for doubt in doubts if doubt]
    return {"status": DEGRADED, "error": "; ".join(found), **answer} if found else {"status": HEALTHY, **answer}


def above(name: str, value: float | None, most: float | None, unit: str = "") -> str | None:
    """Return the doubt about a figure above its limit; None when it is within it, or when the figure or limit is unknown."""
    if value is None or not most or value <= most:
        return None
    return f"{name} is {value:g}{unit}, more than {most:g}{unit}"
