"""PostgreSQL: connect, ask, and look at replication, connections and size."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...core.clock import SystemClock
from . import Answer, Cut, ProbeError, above, graded, standby

if TYPE_CHECKING:
    import psycopg

MOST_BYTES = (
    4 * 1024 * 1024
)  # of a login, which has some KB; libpq may leave some for its next look, which are counted twice
# A user without pg_monitor does not see the type of others' backends: those with a user and a database are clients.
FIGURES = """
SELECT current_setting('server_version'),
       pg_is_in_recovery(),
       (SELECT count(*) FROM pg_stat_replication),
       (SELECT count(*) FROM pg_stat_activity
         WHERE backend_type = 'client backend' OR backend_type IS NULL AND usesysid IS NOT NULL AND datid IS NOT NULL),
       current_setting('max_connections')::int,
       pg_database_size(current_database())
"""
NAMES = ("version", "in_recovery", "replicas", "connections", "max_connections", "size_bytes")


def probe(url: str, timeout: float, limits: Mapping[str, Any], before: Answer, cut: Cut) -> Answer:
    """Return the server's figures. Raise whatever the driver raises."""
    with _connected(url, timeout) as connection:
        cut.function = lambda: _hang_up(connection.fileno())
        connection.autocommit = True
        connection.execute("SELECT 1")
        answer = dict(zip(NAMES, connection.execute(FIGURES).fetchone() or (), strict=True))
        own = standby.ask(connection, before) if answer["in_recovery"] else {"replication_lag_seconds": None}
        cut.function = None
    used = round(100 * answer["connections"] / answer["max_connections"], 1)
    return graded(
        {**answer, **own, "connections_percent": used},
        *(standby.doubts(own, limits.get("max_lag")) if answer["in_recovery"] else ()),
        above("use of connections", used, limits.get("max_connections_percent"), " %"),
    )


def _connected(url: str, seconds: float) -> psycopg.Connection[Any]:
    """Connect within so many seconds. Raise whatever the driver raises, or TimeoutError.

    psycopg.connect() waits so long for each piece of an answer: who says one piece after the other, without end, would be
    listened to for ever, and all of it kept. Here all of them together have that time, and MOST_BYTES.
    """
    import psycopg  # optional: only hosts that watch a PostgreSQL need it

    clock = SystemClock()
    until, left = clock.monotonic() + seconds, MOST_BYTES
    line = psycopg.pq.PGconn.connect_start(url.encode())
    try:
        state: int | None = psycopg.pq.PollingStatus.WRITING if line.status != psycopg.pq.ConnStatus.BAD else None
        while state in (psycopg.pq.PollingStatus.WRITING, psycopg.pq.PollingStatus.READING):
            left -= _wait(line.socket, state == psycopg.pq.PollingStatus.READING, until - clock.monotonic())
            if left < 0:
                raise ProbeError(f"it says more than {MOST_BYTES // 1024} KiB before it lets us in: that is no PostgreSQL")
            state = line.connect_poll()
        if state != psycopg.pq.PollingStatus.OK:
            raise psycopg.OperationalError(line.error_message.decode("utf-8", "replace"))
    except BaseException:
        line.finish()
        raise
    line.nonblocking = 1
    return psycopg.Connection(line)


def _wait(descriptor: int, is_to_read: bool, seconds: float) -> int:
    """Wait until libpq can go on with a connection; return how many bytes there are to be read. Raise TimeoutError."""
    polling = select.poll()
    polling.register(descriptor, select.POLLIN if is_to_read else select.POLLOUT)
    if seconds <= 0 or not polling.poll(seconds * 1000):
        raise TimeoutError("the connection was not there in time")
    count = bytearray(struct.calcsize("i"))
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)


def _hang_up(descriptor: int) -> None:
    """End a conversation under the driver that waits for it, in another thread: it sees the end of the stream.

    That needs no descriptor: there may be none to be had.
    """
    with suppress(OSError):
        line = socket.socket(fileno=descriptor)
        try:
            line.shutdown(socket.SHUT_RDWR)
        finally:
            line.detach()
