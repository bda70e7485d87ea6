"""Communication with systemd: readiness, status, watchdog and passed sockets. Outside of systemd, all calls do nothing.

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
START_EXTENSION = 60.0  # seconds by which each `starting` extends the start timeout


class Notifier:
    """Sends the state of the daemon to the service manager. The planner's loop feeds the watchdog: a stuck loop is noticed.

    Sending never blocks: a service manager that hangs must not stop the loop. A state that was not accepted is sent again.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._notifier = sdnotify.SystemdNotifier()
        if self._notifier.socket is not None:
            self._notifier.socket.setblocking(False)
            self._notifier.debug = True  # raise what goes wrong
        self._lock = threading.Lock()
        self._pending: str | None = None
        self._every = _watchdog_seconds() / 2
        self._next = 0.0

    def ready(self, status: str) -> None:
        """Report that the daemon is ready, at the start or after a reload."""
        self._send_reliably(f"READY=1\nSTATUS={one_line(status)}")

    def reloading(self) -> None:
        """Report that a reload has begun."""
        self._send_reliably(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.monotonic() * 1_000_000)}")

    def starting(self, status: str) -> None:
        """Report what the start waits for, and extend the start timeout: called every few seconds."""
        self._send(f"STATUS={one_line(status)}\nEXTEND_TIMEOUT_USEC={int(START_EXTENSION * 1_000_000)}")

    def stopping(self, seconds: float) -> None:
        """Report the shutdown, and how many seconds it may take."""
        self._send_reliably(f"STOPPING=1\nSTATUS=Waiting for running jobs\nEXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def feed_watchdog(self) -> None:
        """Feed the watchdog twice in each interval. Called at each turn of the loop that succeeded."""
        if self._every and self._clock.monotonic() >= self._next:
            self._next = self._clock.monotonic() + self._every
            self._send("WATCHDOG=1")

    def resend_pending(self) -> None:
        """Send a state that the service manager did not accept yet. Called at each turn of the loop."""
        if self._pending is not None:
            self._send_pending()

    def _send_reliably(self, text: str) -> None:
        """Send a state that must arrive; it replaces one that is still pending."""
        with self._lock:
            self._pending = text
        self._send_pending()

    def _send_pending(self) -> None:
        with self._lock:
            if self._pending is not None and self._send(self._pending):
                self._pending = None

    def _send(self, text: str) -> bool:
        """Send a message; return whether no second attempt is needed."""
        if self._notifier.socket is None:
            return True
        try:
            self._notifier.notify(text)
        except BlockingIOError:
            return False
        except OSError as error:
            log.debug("the service manager cannot be notified: %s", error)
        return True


def passed_sockets() -> list[socket.socket]:
    """Return the listening sockets that systemd passed; their variables are removed, so that no child inherits them."""
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
    """Return the watchdog interval in seconds, 0.0 when systemd expects none (sd_watchdog_enabled(3))."""
    pid = os.environ.get("WATCHDOG_PID")
    if pid is not None and pid != str(os.getpid()):
        return 0.0
    micros = os.environ.get("WATCHDOG_USEC", "")
    return int(micros) / 1_000_000 if micros.isdigit() else 0.0
