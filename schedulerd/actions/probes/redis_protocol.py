"""A Redis client that limits the time and the data of a connection, whichever program answers at the address.

Another program may listen on the port of a server that is down, and send data without end. A driver would store all of it
in the daemon's memory, and its timeout for each read would never expire. So one deadline applies to the whole connection,
and one limit to all received data. The protocol is RESP 2 (redis.io, "Redis serialization protocol specification").
"""

from __future__ import annotations

import socket
from contextlib import suppress
from types import TracebackType
from typing import Self

from ...backups.tls_tunnel import context_of
from ...backups.urls import RedisServer
from ...core.clock import SystemClock
from . import Cut, ProbeError

MOST_BYTES = 1024 * 1024  # INFO of a server with many databases and modules is about 10 KB
PIECE_BYTES = 64 * 1024


class Talk:
    """An authenticated connection to one server. Not thread-safe, except for `cut`, which another thread may call."""

    def __init__(self, server: RedisServer, seconds: float, cut: Cut) -> None:
        """Connect and log in. Raise OSError, ProbeError, or BackupError for an unusable TLS file."""
        self._clock = SystemClock()
        self._until = self._clock.monotonic() + seconds
        self._left = MOST_BYTES
        self._ahead = b""
        context = context_of(server.tls) if server.tls is not None else None
        if server.path is not None:
            self._line = socket.socket(socket.AF_UNIX)
            self._line.settimeout(seconds)
        else:
            self._line = socket.create_connection((server.host, server.port), seconds)
        try:
            cut.function = self.hang_up
            if server.path is not None:
                self._line.connect(server.path)
            if context is not None:
                tls = context.wrap_socket(self._line, server_hostname=server.host, do_handshake_on_connect=False)
                self._line = tls
                tls.do_handshake()
            if password := server.env.get("REDISCLI_AUTH"):
                self.ask("AUTH", *server.login[1:], password)
        except BaseException:
            self._line.close()
            raise

    def __enter__(self) -> Self:
        """Return the connection, which is closed at the end of the block."""
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None) -> None:
        """Close the connection."""
        self._line.close()

    def hang_up(self) -> None:
        """Shut down the connection. A thread that waits on it reads an end of file."""
        with suppress(OSError):  # SSLSocket.shutdown would discard the TLS state that the waiting thread uses
            socket.socket.shutdown(self._line, socket.SHUT_RDWR)

    def ask(self, *words: str) -> str:
        """Send a command; return the reply, a string. Raise OSError, or ProbeError for an error reply."""
        parts = [b"*%d\r\n" % len(words)]
        parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in map(str.encode, words)]
        self._line.settimeout(self._rest())
        self._line.sendall(b"".join(parts))
        kind, text = self._read_line()
        if kind == "-":
            raise ProbeError(text)
        if kind == "$" and text.isdecimal():
            return self._read(int(text) + 2)[:-2].decode("utf-8", "replace")
        if kind not in "+:":
            raise ProbeError("what answers is no Redis")
        return text

    def _read_line(self) -> tuple[str, str]:
        while b"\r\n" not in self._ahead:
            self._ahead += self._received()
        line, _, self._ahead = self._ahead.partition(b"\r\n")
        text = line.decode("utf-8", "replace")
        return text[:1], text[1:]

    def _read(self, count: int) -> bytes:
        if count > self._left + len(self._ahead):
            raise self._too_much()
        while len(self._ahead) < count:
            self._ahead += self._received()
        data, self._ahead = self._ahead[:count], self._ahead[count:]
        return data

    def _received(self) -> bytes:
        if not self._left:
            raise self._too_much()
        self._line.settimeout(self._rest())
        piece = self._line.recv(min(PIECE_BYTES, self._left))
        if not piece:
            raise ProbeError("it hung up before it had answered")
        self._left -= len(piece)
        return piece

    def _rest(self) -> float:
        """Return the seconds until the deadline. Raise TimeoutError when it has passed."""
        rest = self._until - self._clock.monotonic()
        if rest <= 0:
            raise TimeoutError("timed out")
        return rest

    def _too_much(self) -> ProbeError:
        return ProbeError(f"it answers more than {MOST_BYTES // 1024} KiB: that is no Redis")
