"""Talk to systemd: ready, stopping, status, watchdog. Outside of systemd every call does nothing (sd_notify(3))."""

from __future__ import annotations

import os

import sdnotify

from .clock import Clock

START_EXTENSION = 60.0  # seconds that a start is given from each word on


class Notifier:
    """Tells the service manager how the daemon is. Fed by the planner's loop, so a stuck loop is noticed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._notifier = sdnotify.SystemdNotifier()
        self._every = _watchdog_seconds() / 2
        self._next = 0.0

    def ready(self, status: str) -> None:
        """Say that the daemon is up, or up again after a reload."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Say that a reload has begun."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.monotonic() * 1_000_000)}")

    def starting(self, status: str) -> None:
        """Say what the start waits for, and that it is to be given time: called every few seconds until it is over."""
        self._send(f"STATUS={status}\nEXTEND_TIMEOUT_USEC={int(START_EXTENSION * 1_000_000)}")

    def stopping(self) -> None:
        """Say that the daemon is ending."""
        self._send("STOPPING=1\nSTATUS=Waiting for running jobs")

    def feed_watchdog(self) -> None:
        """Say that the loop is alive; twice in each interval is enough."""
        if self._every and self._clock.monotonic() >= self._next:
            self._next = self._clock.monotonic() + self._every
            self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        self._notifier.notify(text)


def _watchdog_seconds() -> float:
    """Return the interval that systemd expects of this process, 0 when it expects none (sd_watchdog_enabled(3))."""
    pid = os.environ.get("WATCHDOG_PID")
    if pid is not None and pid != str(os.getpid()):
        return 0.0
    micros = os.environ.get("WATCHDOG_USEC", "")
    return int(micros) / 1_000_000 if micros.isdigit() else 0.0
