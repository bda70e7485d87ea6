"""Refuses waiting requests when the daemon cannot start. Otherwise, the service manager would start it for each of them."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress

from .responses import raw_error

MOST_CALLERS = 4096  # a flood of callers does not delay the exit
LARGEST_REQUEST = 128 * 1024  # bytes


def refuse_waiting(listeners: Iterable[socket.socket], reason: str) -> None:
    """Send 503 and the reason to all callers that wait on listening sockets. This does not block."""
    answer = raw_error(503, reason, **{"Retry-After": "10"})
    for listener in listeners:
        with suppress(OSError):  # BlockingIOError: no caller is waiting
            listener.setblocking(False)
            for _ in range(MOST_CALLERS):
                _answer(listener.accept()[0], answer)


def _answer(connection: socket.socket, answer: bytes) -> None:
    with connection, suppress(OSError):  # the caller may have disconnected
        connection.setblocking(False)
        with suppress(BlockingIOError):
            connection.recv(LARGEST_REQUEST)  # unread data would reset the connection and discard the response
        connection.send(answer)
