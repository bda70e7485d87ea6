"""PostgreSQL: connect, ask, and look at replication, connections and size."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from . import Answer, Cut, above, graded

FIGURES = """
SELECT current_setting('server_version'),
       pg_is_in_recovery(),
       CASE WHEN NOT pg_is_in_recovery() THEN NULL
            WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
            ELSE EXTRACT(EPOCH FROM now() - pg_last_xact_replay_timestamp()) END::float8,
       (SELECT count(*) FROM pg_stat_replication),
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
       current_setting('max_connections')::int,
       pg_database_size(current_database())
"""
NAMES = (
    "version", "in_recovery", "replication_lag_seconds", "replicas", "connections", "max_connections", "size_bytes",
)  # fmt: skip


def probe(url: str, timeout: float, limits: Mapping[str, Any], cut: Cut) -> Answer:
    """Return the server's figures. Raise whatever the driver raises."""
    import psycopg  # optional: only hosts that watch a PostgreSQL need it

    with psycopg.connect(url, connect_timeout=max(1, round(timeout)), autocommit=True) as connection:
        cut.function = lambda: _hang_up(connection.fileno())
        connection.execute("SELECT 1")
        row = connection.execute(FIGURES).fetchone()
        cut.function = None
    answer = dict(zip(NAMES, row or (), strict=False))
    used = round(100 * answer["connections"] / answer["max_connections"], 1)
    return graded(
        {**answer, "connections_percent": used},
        above("replication lag", answer["replication_lag_seconds"], limits.get("max_lag"), " s"),
        above("use of connections", used, limits.get("max_connections_percent"), " %"),
    )


def _hang_up(descriptor: int) -> None:
    """End a conversation under the driver that waits for it, in another thread: it sees the end of the stream."""
    with suppress(OSError), socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.shutdown(socket.SHUT_RDWR)
