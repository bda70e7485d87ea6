"""Probes of what the host and its jobs depend on: a file for each kind of target. `runner.py` calls them in parallel.

A probe returns an `Answer`: `status` when it is not healthy, `error` with the reason, and figures. An exception means that
the target is unhealthy. A probe may wait until its timeout; then the runner interrupts it (`Cut`).
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
    """How to end what a probe waits on; it sets `function` once there is something to end."""

    function: Callable[[], None] | None = field(default=None)

    def __call__(self) -> None:
        """End it."""
        if self.function is not None:
            self.function()


Probe = Callable[[Cut], Answer]


def error_text(error: Exception) -> str:
    """Return the error of any driver on one line, without the secrets in a URL."""
    return (mask_userinfo(" ".join(str(error).split())) or type(error).__name__)[:500]


def graded(answer: Answer, *doubts: str | None) -> Answer:
    """Return figures as an answer: degraded, with the reasons, when there is any doubt."""
    found = [doubt for doubt in doubts if doubt]
    return {"status": DEGRADED, "error": "; ".join(found), **answer} if found else {"status": HEALTHY, **answer}


def above(name: str, value: float | None, most: float | None, unit: str = "") -> str | None:
    """Return the doubt about a figure that is above what it may be; None when it is not, or is not known."""
    if value is None or not most or value <= most:
        return None
    return f"{name} is {value:g}{unit}, more than {most:g}{unit}"
