"""Write log messages to a reader that may be slow or stopped (an unread pipe, a suspended terminal), without blocking.

Data that is not accepted is kept up to a limit and written later; further messages are dropped and counted. A thread
that logs may hold locks and starts jobs: it must not block because the log is displayed in a pager.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Callable

MOST_KEPT_BYTES = 1_000_000
PIECE_BYTES = 4096  # PIPE_BUF: after poll(2), a pipe accepts this many bytes without blocking


class NonBlockingWriter:
    """Passes messages to `send`, which returns how many bytes it accepted, 0 for none now. Not thread-safe."""

    def __init__(
        self, send: Callable[[bytes], int], format_lost: Callable[[int], bytes], most_bytes: int = MOST_KEPT_BYTES
    ) -> None:
        """`format_lost` returns the message that reports a number of lost messages."""
        self._send = send
        self._tell_lost = format_lost
        self._most_bytes = most_bytes
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self.lost = 0  # not reported yet

    @property
    def kept(self) -> int:
        """The number of waiting messages."""
        return len(self._kept)

    def put(self, message: bytes) -> None:
        """Write a message after those that wait."""
        self.flush()
        if not self._kept and not (message := message[self._sent(message) :]):
            return
        if self._kept_bytes + len(message) > self._most_bytes and self._kept:
            self.lost += 1
            return
        self._keep(message)

    def flush(self) -> bool:
        """Write waiting messages as far as they are accepted; return whether none is left."""
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
        """Send a message as far as it is accepted now; return the number of bytes."""
        sent = 0
        while sent < len(message) and (accepted := self._send(message[sent:])):
            sent += accepted
        return sent


def to_descriptor(descriptor: int) -> Callable[[bytes], int]:
    """Return a function that writes to a descriptor without blocking; O_NONBLOCK is not set, because it may be shared."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)

    def send(data: bytes) -> int:
        try:
            ready = poll.poll(0)
            return os.write(descriptor, data[:PIECE_BYTES]) if ready and ready[0][1] & select.POLLOUT else _gone(ready, data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # discard: it can never be written

    return send


def _gone(ready: list[tuple[int, int]], data: bytes) -> int:
    return len(data) if ready else 0  # POLLERR or POLLHUP: the reader is gone


def to_socket(there: socket.socket) -> Callable[[bytes], int]:
    """Return a function that sends datagrams without blocking. It raises OSError except BlockingIOError."""

    def send(data: bytes) -> int:
        try:
            return there.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    return send
