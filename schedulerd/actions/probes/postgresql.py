"""Probe of a PostgreSQL server: connects, queries it, and returns figures of replication, connections and size."""

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

# Limit of the data received during login, which is a few KB. Bytes that libpq leaves unread are counted twice.
MOST_BYTES = 4 * 1024 * 1024
# A user without pg_monitor cannot see the type of other users' backends: those with a user and a database are clients.
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
    """Return the server's figures. Raise any exception of the driver."""
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
    """Connect within `seconds`. Raise any exception of the driver, ProbeError or TimeoutError.

    The timeout of psycopg.connect() applies to each piece of a response. A server that sends pieces without end would keep
    the connection attempt open forever, and its data would fill memory. Here `seconds` and MOST_BYTES limit all pieces
    together.
    """
    import psycopg  # optional: needed only by probes of PostgreSQL

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
    """Wait until libpq can continue to connect; return the number of readable bytes. Raise TimeoutError."""
    polling = select.poll()
    polling.register(descriptor, select.POLLIN if is_to_read else select.POLLOUT)
    if seconds <= 0 or not polling.poll(seconds * 1000):
        raise TimeoutError("the connection was not there in time")
    count = bytearray(struct.calcsize("i"))
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)


def _hang_up(descriptor: int) -> None:
    """Shut down a connection on which the driver waits in another thread. The driver then reads an end of file.

    This opens no descriptor, since the limit of descriptors may be reached.
    """
    with suppress(OSError):
        line = socket.socket(fileno=descriptor)
        try:
            line.shutdown(socket.SHUT_RDWR)
        finally:
            line.detach()
