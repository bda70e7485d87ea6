"""How far a PostgreSQL standby is behind its primary, as far as it knows that itself.

`now() - pg_last_xact_replay_timestamp()` is the age of a transaction, and not a lag: it grows while the primary is idle. So

- a standby that has replayed all that its primary is known to have written is 0 s behind. Known is what was received, and
  the end that the primary tells of (`latest_end_lsn`); what was received can be *less* than what was replayed: since a
  restart of the standby it may be the beginning of a segment.
- another one is behind by no more than the age of the last transaction that it replayed, nor than the time since a check saw
  it with all there was (`caught_up`): the first write after an idle night would be a night of lag otherwise.
- one that has lost its primary, and has replayed all that it got, cannot know what it lacks: no figure, and degraded.

Sources: PostgreSQL's manual, "Recovery Information Functions" and "pg_stat_wal_receiver". A user without pg_monitor does
not see that view's columns, only whether there is a receiver.
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
IN_FLIGHT_SECONDS = 0.1  # what is behind, yet not after that, was only on its way
FIGURES = ("streaming", "replay_paused", "replay_lsn", "primary_heard_seconds")


def ask(connection: psycopg.Connection[Any], before: Answer) -> Answer:
    """Return what a server in recovery tells, with the `before` of the last check. Raise whatever the driver raises."""
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
    """Return the figures of a standby in that state, which an earlier check may have seen `caught_up`. Pure."""
    has_all = state["streaming"] and state["has_all"]
    return {
        **{name: state[name] for name in FIGURES},
        "replication_lag_seconds": 0.0 if has_all else _behind(state),
        "caught_up": {"at": state["at"], "lsn": state["replay_lsn"]} if has_all else known,
        "lost_primary": state["has_primary"] and not state["streaming"],
    }


def _behind(state: Mapping[str, Any]) -> float | None:
    """Return by how many seconds at most; None when what it lacks cannot be known."""
    is_blind = state["has_primary"] and not state["streaming"] and state["has_all"] is not False
    seconds = state["behind_seconds"]
    return None if is_blind or seconds is None else round(max(0.0, seconds), 3)  # two clocks: it may be negative


def doubts(answer: Answer, max_lag: float | None) -> list[str | None]:
    """Return what is wrong with a standby. Pure."""
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
