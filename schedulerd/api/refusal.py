"""Answers callers when there will be no daemon: the service manager would start another one for each request that waits."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress

from .responses import raw_error

MOST_CALLERS = 4096  # a flood is not waited out
LARGEST_REQUEST = 128 * 1024  # bytes


def refuse_waiting(listeners: Iterable[socket.socket], reason: str) -> None:
    """Answer everybody who waits on listening sockets with 503 and the reason; wait for nobody."""
    answer = raw_error(503, reason, **{"Retry-After": "10"})
    for listener in listeners:
        with suppress(OSError):  # BlockingIOError: nobody waits any more
            listener.setblocking(False)
            for _ in range(MOST_CALLERS):
                _answer(listener.accept()[0], answer)


def _answer(connection: socket.socket, answer: bytes) -> None:
    with connection, suppress(OSError):  # the caller may be gone
        connection.setblocking(False)
        with suppress(BlockingIOError):
            connection.recv(LARGEST_REQUEST)  # what is left unread would reset the connection, and the answer with it
        connection.send(answer)
