"""PostgreSQL: connect, ask, and look at replication, connections and size."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from . import Answer, Cut, above, graded, standby

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
    import psycopg  # optional: only hosts that watch a PostgreSQL need it

    with psycopg.connect(url, connect_timeout=max(1, round(timeout)), autocommit=True) as connection:
        cut.function = lambda: _hang_up(connection.fileno())
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
