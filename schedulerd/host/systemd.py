"""Talk to systemd: ready, stopping, status, watchdog, and sockets that it holds. Outside of systemd every call does nothing.

See sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3).
"""

from __future__ import annotations

import logging
import os
import socket
import threading

import sdnotify

from ..core.clock import Clock
from ..core.text import one_line

log = logging.getLogger(__name__)

FIRST_PASSED = 3  # the descriptor of the first socket that systemd passes
START_EXTENSION = 60.0  # seconds that a start is given from each word on


class Notifier:
    """Tells the service manager how the daemon is. Fed by the planner's loop, so a stuck loop is noticed.

    A manager that hangs must not stop the loop: it is never waited for. What it must know and did not take is said again.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._notifier = sdnotify.SystemdNotifier()
        if self._notifier.socket is not None:
            self._notifier.socket.setblocking(False)
            self._notifier.debug = True  # raise what goes wrong
        self._lock = threading.Lock()
        self._owed: str | None = None
        self._every = _watchdog_seconds() / 2
        self._next = 0.0

    def ready(self, status: str) -> None:
        """Say that the daemon is up, or up again after a reload."""
        self._owe(f"READY=1\nSTATUS={one_line(status)}")

    def reloading(self) -> None:
        """Say that a reload has begun."""
        self._owe(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.monotonic() * 1_000_000)}")

    def starting(self, status: str) -> None:
        """Say what the start waits for, and that it is to be given time: called every few seconds until it is over."""
        self._send(f"STATUS={one_line(status)}\nEXTEND_TIMEOUT_USEC={int(START_EXTENSION * 1_000_000)}")

    def stopping(self, seconds: float) -> None:
        """Say that the daemon is ending, and for how long that may take."""
        self._owe(f"STOPPING=1\nSTATUS=Waiting for running jobs\nEXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def feed_watchdog(self) -> None:
        """Say that the loop starts jobs; twice in each interval is enough. Called at each turn that went well."""
        if self._every and self._clock.monotonic() >= self._next:
            self._next = self._clock.monotonic() + self._every
            self._send("WATCHDOG=1")

    def resend_pending(self) -> None:
        """Say what the manager must know and did not take yet. Called at each turn of the loop."""
        if self._owed is not None:
            self._pay()

    def _owe(self, text: str) -> None:
        """Say something that the manager must know, instead of what it has not heard yet."""
        with self._lock:
            self._owed = text
        self._pay()

    def _pay(self) -> None:
        with self._lock:
            if self._owed is not None and self._send(self._owed):
                self._owed = None

    def _send(self, text: str) -> bool:
        """Say something; return whether it is worth no second try."""
        if self._notifier.socket is None:
            return True
        try:
            self._notifier.notify(text)
        except BlockingIOError:
            return False
        except OSError as error:
            log.debug("the service manager cannot be told: %s", error)
        return True


def passed_sockets() -> list[socket.socket]:
    """Return the listening sockets that systemd holds for this process; what it said of them is for nobody else."""
    pid, count = os.environ.get("LISTEN_PID", ""), os.environ.get("LISTEN_FDS", "")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    found = []
    for descriptor in range(FIRST_PASSED, FIRST_PASSED + int(count)):
        os.set_inheritable(descriptor, False)
        found.append(socket.socket(fileno=descriptor))
    return found


def _watchdog_seconds() -> float:
    """Return the interval that systemd expects of this process, 0 when it expects none (sd_watchdog_enabled(3))."""
    pid = os.environ.get("WATCHDOG_PID")
    if pid is not None and pid != str(os.getpid()):
        return 0.0
    micros = os.environ.get("WATCHDOG_USEC", "")
    return int(micros) / 1_000_000 if micros.isdigit() else 0.0
