"""The connection of the keeper to the daemon that connected last: receives orders, sends reports, and never waits."""

from __future__ import annotations

import json
import select
import socket
from collections import deque
from contextlib import suppress
from typing import Any

from ...core.clock import SystemClock
from ...host.descriptors import format_os_error

REPORT_SECONDS = 0.02  # how long reports may wait to be sent together, while there are runs to start
ACCEPT_SECONDS = 1.0  # between two attempts to accept a connection
CHUNK = 256 * 1024
LINE = b"\n"


class DaemonConnection:
    """Orders that a daemon sends through `listener` are in `orders`."""

    def __init__(self, clock: SystemClock, epoll: select.epoll, listener: socket.socket) -> None:
        self._clock = clock
        self._epoll = epoll
        self._listener = listener
        self.orders: deque[dict[str, Any]] = deque()
        self._daemon: socket.socket | None = None
        self._unread = b""
        self._unsent = b""
        self._is_blocked = False  # the daemon reads more slowly than we write
        self._sent_at = 0.0
        self.accept_at: float | None = None  # monotonic: the next attempt to accept a connection
        self.trouble: str | None = None  # why the last attempt failed
        self._epoll.register(listener.fileno(), select.EPOLLIN)

    @property
    def is_there(self) -> bool:
        """Whether a daemon is connected."""
        return self._daemon is not None

    @property
    def is_awaited(self) -> bool:
        """Whether a daemon is connected, or its connection could not be accepted yet."""
        return self._daemon is not None or self.accept_at is not None

    def listen_on(self, fresh: socket.socket) -> None:
        """Accept connections on another socket."""
        self._epoll.register(fresh.fileno(), select.EPOLLIN)
        self._epoll.unregister(self._listener.fileno())
        self._listener.close()
        self._listener, self.accept_at = fresh, None

    def receive(self, ready: dict[int, int]) -> bool:
        """Read orders; return whether a daemon waits to be accepted (see `accept`)."""
        if self._daemon is not None and ready.get(self._daemon.fileno(), 0) & (select.EPOLLIN | select.EPOLLHUP):
            self._read(self._daemon)
        is_waiting = self._listener.fileno() in ready
        if self.accept_at is not None and self._clock.monotonic() >= self.accept_at:
            self.accept_at, is_waiting = None, True
            self._epoll.modify(self._listener.fileno(), select.EPOLLIN)
        if not is_waiting or self.orders:
            return False
        if self._daemon is not None:
            self._read_all(self._daemon)  # it is dead, but its orders are to be carried out
        return not self.orders

    def accept(self) -> bool:
        """Accept a daemon. When that fails it is retried later; ends are noted meanwhile."""
        daemon = None
        try:
            daemon = self._listener.accept()[0]
            self._epoll.register(daemon.fileno(), select.EPOLLIN)
        except (BlockingIOError, ConnectionError):  # it has closed the connection
            return False
        except OSError as error:
            if daemon is not None:
                daemon.close()
            self.trouble = f"cannot accept a connection: {format_os_error(error)}"
            self.accept_at = self._clock.monotonic() + ACCEPT_SECONDS
            self._epoll.modify(self._listener.fileno(), 0)
            return False
        daemon.setblocking(False)
        self._daemon, self._is_blocked = daemon, False
        return True

    def _read(self, daemon: socket.socket) -> None:
        try:
            data = daemon.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._leave(daemon)
            return
        *lines, self._unread = (self._unread + data).split(LINE)
        self.orders.extend(json.loads(line) for line in lines)

    def _read_all(self, daemon: socket.socket) -> None:
        while self._daemon is daemon:
            before = len(self._unread), len(self.orders)
            self._read(daemon)
            if self._daemon is daemon and before == (len(self._unread), len(self.orders)):
                self._leave(daemon)  # it is alive, but a later daemon takes precedence

    def _leave(self, daemon: socket.socket) -> None:
        with suppress(OSError):
            self._epoll.unregister(daemon.fileno())
        daemon.close()
        self._daemon, self._unread, self._unsent = None, b"", b""

    def report(self, line: dict[str, Any]) -> None:
        """Report something to the daemon with the next `send`; without a daemon, discard it."""
        if self._daemon is not None:
            self._unsent += json.dumps(line, separators=(",", ":")).encode() + LINE

    def send(self) -> None:
        """Send the reports; while there are orders, collect those of REPORT_SECONDS."""
        daemon, now = self._daemon, self._clock.monotonic()
        if daemon is None or (self.orders and now < self._sent_at + REPORT_SECONDS):
            return
        self._sent_at = now
        try:
            if self._unsent:
                self._unsent = self._unsent[daemon.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._leave(daemon)
            return
        if self._is_blocked != bool(self._unsent):
            self._is_blocked = bool(self._unsent)
            self._epoll.modify(daemon.fileno(), select.EPOLLIN | (select.EPOLLOUT if self._is_blocked else 0))
