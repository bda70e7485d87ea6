"""Calls probes in parallel, each with its own timeout. At most one thread hangs for each target.

A probe that hangs in the kernel, such as on an unreachable network file system, cannot be interrupted. Its thread is
recorded. Until that thread returns, its target is reported as unhealthy, and no other thread is started for it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...core.clock import Clock
from ...core.units import format_duration
from . import HEALTHY, UNHEALTHY, Answer, Cut, Probe, error_text

_hanging: dict[str, _Call] = {}  # of this process, by key
_lock = threading.Lock()


@dataclass(frozen=True)
class Planned:
    """A probe to call, its timeout in seconds, and the `key` that identifies its target in later checks."""

    probe: Probe
    timeout_seconds: float
    key: str


@dataclass
class _Call:
    planned: Planned
    clock: Clock
    started: float
    answer: Answer | None = None
    cut: Cut = field(default_factory=Cut)
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        try:
            answer = {"status": HEALTHY, **self.planned.probe(self.cut)}
        except Exception as error:  # any exception of a driver is the result of the probe
            answer = {"status": UNHEALTHY, "error": error_text(error)}
        self.answer = {**answer, "latency_ms": round((self.clock.monotonic() - self.started) * 1000, 2)}
        self.done.set()

    def wait(self) -> Answer:
        """Return the answer, or an unhealthy one when the timeout expires."""
        left = self.started + self.planned.timeout_seconds - self.clock.monotonic()
        if self.done.wait(max(0.0, left)) and self.answer is not None:
            return self.answer
        with _lock:
            _hanging[self.planned.key] = self
        self.cut()
        text = f"no answer within {self.planned.timeout_seconds:g} s"
        return {"status": UNHEALTHY, "error": text, "latency_ms": None}


def probe_all(planned: Mapping[str, Planned], clock: Clock) -> dict[str, Answer]:
    """Call all probes; return their answers by name."""
    calls = {name: _begun(each, clock) for name, each in planned.items()}
    return {name: call if isinstance(call, dict) else call.wait() for name, call in calls.items()}


def _begun(planned: Planned, clock: Clock) -> _Call | Answer:
    """Start a probe, unless an earlier probe of the same target still hangs."""
    with _lock:
        last = _hanging.get(planned.key)
        if last is not None and last.done.is_set():
            del _hanging[planned.key]
            last = None
    if last is not None:
        ago = format_duration(clock.monotonic() - last.started)
        return {"status": UNHEALTHY, "error": f"the probe that began {ago} ago still hangs", "latency_ms": None}
    call = _Call(planned, clock, clock.monotonic())
    try:
        threading.Thread(target=call.run, name=f"probe-{planned.key}"[:60], daemon=True).start()
    except RuntimeError as error:
        return {"status": UNHEALTHY, "error": f"the probe could not be started: {error}", "latency_ms": None}
    return call
