"""Accepts connections, and decides on each one before any object is created for it, so that refusing a stranger is cheap.

A stranger is not admitted when another one of the same peer would have to be closed before it could be served. A stranger
that has not sent a request is set aside until it sends one, until its timeout expires, or until others displace it.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from .admission import AdmissionDecision

MOST_ACCEPTED = 128  # in one iteration of the loop: root may be queued behind 2,000 others, and a decision is cheap
MOST_WAITING = 128
WAIT_SECONDS = 1.0
POLL_SECONDS = 0.003
PEEK_BYTES = 4096

Decide = Callable[[socket.socket, Callable[[socket.socket], bool]], AdmissionDecision]


class FilteredListener(socket.socket):
    """A listening socket that returns admitted connections only. It replaces `listener`, which it closes."""

    def __init__(self, listener: socket.socket, filter_: ConnectionFilter) -> None:
        super().__init__(listener.family, listener.type, listener.proto, fileno=listener.detach())
        self._filter = filter_

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next admitted connection. Raise BlockingIOError when there is none, or OSError as accept(2) does."""
        for _ in range(MOST_ACCEPTED):
            connection, address = super().accept()
            if self._filter.admits(connection):
                return connection, address
        raise BlockingIOError("the other sockets of the loop are next")


class ConnectionFilter:
    """Admits or closes new connections. While there are many, it sets silent strangers aside."""

    def __init__(self, decide: Decide, protocol: Callable[[], asyncio.Protocol]) -> None:
        """`decide` receives a connection and a function that returns whether it has sent a head."""
        self._decide = decide
        self._protocol = protocol
        self._waiting: deque[tuple[float, socket.socket]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._entering: set[asyncio.Task[Any]] = set()

    def admits(self, connection: socket.socket) -> bool:
        """Return whether the caller must admit a connection. Otherwise this method admits it, sets it aside or closes it."""
        decision = self._decide(connection, has_head)
        if decision is AdmissionDecision.ADMIT:
            return True
        if decision is AdmissionDecision.ADMIT_ASIDE:
            self._admit(asyncio.get_running_loop(), connection)
            return False
        if decision is AdmissionDecision.REFUSE:
            connection.close()
            return False
        self._waiting.append((asyncio.get_running_loop().time() + WAIT_SECONDS, connection))
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()[1].close()
        self._schedule_poll()
        return False

    def close(self) -> None:
        """Close the connections that are set aside."""
        while self._waiting:
            self._waiting.popleft()[1].close()

    def _schedule_poll(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(POLL_SECONDS, self._poll)

    def _poll(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        now, waiting, self._waiting = loop.time(), self._waiting, deque()
        poll = select.poll()
        for _, connection in waiting:
            poll.register(connection, select.POLLIN)
        readable = {descriptor for descriptor, _ in poll.poll(0)}
        for until, connection in waiting:
            is_ready = connection.fileno() in readable and has_head(connection)
            if not is_ready and until > now:
                self._waiting.append((until, connection))
            elif is_ready and self._decide(connection, has_head) in (AdmissionDecision.ADMIT, AdmissionDecision.ADMIT_ASIDE):
                self._admit(loop, connection)
            else:
                connection.close()
        if self._waiting:
            self._schedule_poll()

    def _admit(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        connection.setblocking(False)
        entering = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
        self._entering.add(entering)  # the loop keeps only a weak reference
        entering.add_done_callback(self._entering.discard)


def has_head(connection: socket.socket) -> bool:
    """Return whether a connection has received the whole head of a request."""
    try:
        received = connection.recv(PEEK_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    return b"\r\n\r\n" in received or len(received) == PEEK_BYTES
