"""Passes the log on to a reader who may not take it now (a pipe that nobody reads, a stopped terminal), and never waits.

What is not taken is kept up to a bound, and passed on later; what comes beyond that is dropped and counted. A thread that
logs holds locks and starts jobs: it must not stand still because somebody looks at the log with a pager.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Callable

MOST_KEPT_BYTES = 1_000_000
PIECE_BYTES = 4096  # PIPE_BUF: of so much poll(2) says truly that a pipe takes it at once


class NonBlockingWriter:
    """Data on its way to `send`, which takes some of it and returns how much: 0 for none now. For one thread at a time."""

    def __init__(
        self, send: Callable[[bytes], int], format_lost: Callable[[int], bytes], most_bytes: int = MOST_KEPT_BYTES
    ) -> None:
        """`format_lost` makes the message that so many messages were lost."""
        self._send = send
        self._tell_lost = format_lost
        self._most_bytes = most_bytes
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self.lost = 0  # since they were last told of

    @property
    def kept(self) -> int:
        """How many messages wait."""
        return len(self._kept)

    def put(self, message: bytes) -> None:
        """Pass a message on, after those that wait."""
        self.flush()
        if not self._kept and not (message := message[self._sent(message) :]):
            return
        if self._kept_bytes + len(message) > self._most_bytes and self._kept:
            self.lost += 1
            return
        self._keep(message)

    def flush(self) -> bool:
        """Pass on what waits, as far as it is taken; return whether nothing waits any more."""
        while self._kept or self.lost:
            if not self._kept:
                lost, self.lost = self.lost, 0
                self._keep(self._tell_lost(lost))
            first = self._kept[0]
            sent = self._sent(first)
            self._kept_bytes -= sent
            if sent < len(first):
                self._kept[0] = first[sent:]
                return False
            self._kept.popleft()
        return True

    def _keep(self, message: bytes) -> None:
        self._kept.append(message)
        self._kept_bytes += len(message)

    def _sent(self, message: bytes) -> int:
        """Send as much of a message as is taken now; return how much that is."""
        sent = 0
        while sent < len(message) and (taken := self._send(message[sent:])):
            sent += taken
        return sent


def to_descriptor(descriptor: int) -> Callable[[bytes], int]:
    """Return what writes to a descriptor without waiting. It may be shared, so it is not made a non-blocking one."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)

    def send(data: bytes) -> int:
        try:
            ready = poll.poll(0)
            return os.write(descriptor, data[:PIECE_BYTES]) if ready and ready[0][1] & select.POLLOUT else _gone(ready, data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # nobody will ever take it

    return send


def _gone(ready: list[tuple[int, int]], data: bytes) -> int:
    return len(data) if ready else 0  # an error or a hang-up: its reader is gone


def to_socket(there: socket.socket) -> Callable[[bytes], int]:
    """Return what sends datagrams without waiting. Errors are the caller's."""

    def send(data: bytes) -> int:
        try:
            return there.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    return send
