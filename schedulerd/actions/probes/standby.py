"""The replication lag of a PostgreSQL standby, computed from the information on the standby alone.

`now() - pg_last_xact_replay_timestamp()` is the age of a transaction, not a lag: it grows while the primary is idle.
Therefore:

- The lag is 0 s when the standby has replayed all WAL that its primary is known to have written. This is the received WAL,
  and the WAL up to the position that the primary last reported (`latest_end_lsn`). The received position can be *lower*
  than the replayed one: after a restart of the standby, it may be the beginning of a segment.
- Otherwise, the lag is at most the age of the last replayed transaction, and at most the time since a check found the
  standby without lag (`caught_up`). Without the second limit, the first write after an idle night would be reported as a
  lag of a night.
- The lag is unknown when the standby has lost its primary and has replayed all received WAL. It is then degraded.

Sources: the PostgreSQL manual, "Recovery Information Functions" and "pg_stat_wal_receiver". A user without pg_monitor
cannot read the columns of that view, only whether a receiver exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import Answer, above

if TYPE_CHECKING:
    import psycopg

STATE = """
SELECT replayed::text AS replay_lsn,
       paused AS replay_paused,
       receiver.pid IS NOT NULL AND coalesce(receiver.status, 'streaming') = 'streaming' AS streaming,
       extract(epoch FROM now() - receiver.last_msg_receipt_time)::float8 AS primary_heard_seconds,
       received IS NOT NULL OR is_to_stream AS has_primary,
       replayed >= greatest(received, receiver.latest_end_lsn) AS has_all,
       extract(epoch FROM now() - greatest(
           last_at, CASE WHEN replayed >= %(lsn)s::pg_lsn THEN %(at)s::timestamptz END))::float8 AS behind_seconds,
       to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
       replayed >= %(lsn)s::pg_lsn AS was_caught_up
FROM (SELECT pg_last_wal_receive_lsn() AS received, pg_is_wal_replay_paused() AS paused,
             pg_last_xact_replay_timestamp() AS last_at, pg_last_wal_replay_lsn() AS replayed,
             coalesce((SELECT setting <> '' FROM pg_settings WHERE name = 'primary_conninfo'), false) AS is_to_stream) AS own
LEFT JOIN pg_stat_wal_receiver AS receiver ON true
"""
IN_FLIGHT_SECONDS = 0.1  # WAL that is replayed within this time was in transit, not a lag
FIGURES = ("streaming", "replay_paused", "replay_lsn", "primary_heard_seconds")


def ask(connection: psycopg.Connection[Any], before: Answer) -> Answer:
    """Query a server in recovery. `before` is the answer of the last check. Raise any exception of the driver."""
    known = before.get("caught_up") or {"lsn": None, "at": None}
    state = _state(connection, known)
    if state["has_all"] is False:
        connection.execute("SELECT pg_sleep(%s)", [IN_FLIGHT_SECONDS])
        state = _state(connection, known)
    return judged(state, known if state["was_caught_up"] else None)


def _state(connection: psycopg.Connection[Any], known: Mapping[str, Any]) -> dict[str, Any]:
    cursor = connection.execute(STATE, known)
    return dict(zip([column.name for column in cursor.description or ()], cursor.fetchone() or (), strict=True))


def judged(state: Mapping[str, Any], known: Mapping[str, Any] | None) -> Answer:
    """Return the figures of a standby. `known` is the `caught_up` of an earlier check, or None. Pure."""
    has_all = state["streaming"] and state["has_all"]
    return {
        **{name: state[name] for name in FIGURES},
        "replication_lag_seconds": 0.0 if has_all else _behind(state),
        "caught_up": {"at": state["at"], "lsn": state["replay_lsn"]} if has_all else known,
        "lost_primary": state["has_primary"] and not state["streaming"],
    }


def _behind(state: Mapping[str, Any]) -> float | None:
    """Return the upper bound of the lag in seconds; None when it is unknown."""
    is_blind = state["has_primary"] and not state["streaming"] and state["has_all"] is not False
    seconds = state["behind_seconds"]
    return None if is_blind or seconds is None else round(max(0.0, seconds), 3)  # two clocks: it may be negative


def doubts(answer: Answer, max_lag: float | None) -> list[str | None]:
    """Return the doubts about a standby. Pure."""
    lag, is_lost = answer["replication_lag_seconds"], answer["lost_primary"]
    late = above("replication lag", lag, max_lag, " s")
    paused = "its replay is paused (SELECT pg_wal_replay_resume() ends that)" if late and answer["replay_paused"] else None
    unknown = "replication lag cannot be known: it has replayed no transaction since its start"
    return [_lost(answer), late, paused, unknown if max_lag and lag is None and not is_lost else None]


def _lost(answer: Answer) -> str | None:
    if not answer["lost_primary"]:
        return None
    known = answer["caught_up"]
    since = f" since {known['at']}" if known else ""
    return f"it does not stream from its primary: what it lacks{since} cannot be known"
