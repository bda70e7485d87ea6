"""The keeper's connection to its daemon, the latest that came: orders come in, reports go out, and nothing waits."""

from __future__ import annotations

import json
import select
import socket
from collections import deque
from contextlib import suppress
from typing import Any

from ...core.clock import SystemClock
from ...host.descriptors import format_os_error

REPORT_SECONDS = 0.02  # how long reports may wait to be told together, while there is something to start
ACCEPT_SECONDS = 1.0  # between two tries to accept a connection
CHUNK = 256 * 1024
LINE = b"\n"


class DaemonConnection:
    """What comes from a daemon on `listener` is in `orders`."""

    def __init__(self, clock: SystemClock, epoll: select.epoll, listener: socket.socket) -> None:
        self._clock = clock
        self._epoll = epoll
        self._listener = listener
        self.orders: deque[dict[str, Any]] = deque()
        self._daemon: socket.socket | None = None
        self._unread = b""
        self._unsent = b""
        self._is_blocked = False  # the daemon does not read as fast as we write
        self._told_at = 0.0
        self.accept_at: float | None = None  # when a connection is waited for again that could not be accepted
        self.trouble: str | None = None  # why the last one could not be accepted
        self._epoll.register(listener.fileno(), select.EPOLLIN)

    @property
    def is_there(self) -> bool:
        """Whether there is a daemon."""
        return self._daemon is not None

    @property
    def is_awaited(self) -> bool:
        """Whether there is a daemon, or one that could not be let in yet."""
        return self._daemon is not None or self.accept_at is not None

    def listen_on(self, fresh: socket.socket) -> None:
        """Wait for daemons on another socket."""
        self._epoll.register(fresh.fileno(), select.EPOLLIN)
        self._epoll.unregister(self._listener.fileno())
        self._listener.close()
        self._listener, self.accept_at = fresh, None

    def receive(self, ready: dict[int, int]) -> bool:
        """Take what has come; return whether a daemon waits to be let in (see `accept`)."""
        if self._daemon is not None and ready.get(self._daemon.fileno(), 0) & (select.EPOLLIN | select.EPOLLHUP):
            self._read(self._daemon)
        is_knocking = self._listener.fileno() in ready
        if self.accept_at is not None and self._clock.monotonic() >= self.accept_at:
            self.accept_at, is_knocking = None, True
            self._epoll.modify(self._listener.fileno(), select.EPOLLIN)
        if not is_knocking or self.orders:
            return False
        if self._daemon is not None:
            self._read_all(self._daemon)  # it is dead, but what it ordered is ours to do
        return not self.orders

    def accept(self) -> bool:
        """Let a daemon in. When that cannot be, it waits and is let in later: ends are noted meanwhile."""
        daemon = None
        try:
            daemon = self._listener.accept()[0]
            self._epoll.register(daemon.fileno(), select.EPOLLIN)
        except (BlockingIOError, ConnectionError):  # it has gone meanwhile
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
                self._leave(daemon)  # it lives, and another one was let in: the later one is right

    def _leave(self, daemon: socket.socket) -> None:
        with suppress(OSError):
            self._epoll.unregister(daemon.fileno())
        daemon.close()
        self._daemon, self._unread, self._unsent = None, b"", b""

    def report(self, line: dict[str, Any]) -> None:
        """Tell the daemon something, with the next `send`; nobody is told when there is none."""
        if self._daemon is not None:
            self._unsent += json.dumps(line, separators=(",", ":")).encode() + LINE

    def send(self) -> None:
        """Send the reports, those of a moment together while there are orders."""
        daemon, now = self._daemon, self._clock.monotonic()
        if daemon is None or (self.orders and now < self._told_at + REPORT_SECONDS):
            return
        self._told_at = now
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
