"""Which daemon a history in PostgreSQL belongs to: one, for a second one would take the first one's runs for lost.

A history in a file needs no such note: its lock is the daemon's for as long as it lives, and falls with the machine.
"""

from __future__ import annotations

from typing import Any

import psycopg

from ...core.clock import Clock
from ...core.errors import StoreAwayError, StoreError
from ...core.models import Secret
from ...host.identity import Owner
from ..queries import load_queries
from .connection import DURABLE, Access, Connection, told

SECONDS = 10.0  # for a statement, and for a lock


class OwnedError(StoreError):
    """The history belongs to another daemon, which an operator has to decide about (EX_CONFIG)."""

    exit_status = 78


def own(connection: Connection, access: Access, owner: Owner) -> None:
    """Note whose a history is, when it is nobody's yet. Raise OwnedError when it is another's, StoreError, psycopg.Error."""
    try:
        daemon, name, since = _noted(connection, access, owner)
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(
            f"{told(error)}: grant the daemon's role its rights on all tables of the schema {access.schema} again, since an"
            " upgrade has added one (see README, A history in PostgreSQL)"
        ) from error
    if daemon != owner.daemon:
        raise OwnedError(
            f"the schema {access.schema} belongs to the daemon on {name} since {since:%Y-%m-%dT%H:%M:%SZ}, and two would"
            " take each other's runs for lost: name another one in store_schema:, or, when that daemon is stopped for good"
            " and this one takes its place, say so by `schedulerctl db release`"
        )


def _noted(connection: Connection, access: Access, owner: Owner) -> tuple[Any, ...]:
    sql = load_queries("postgres")
    with connection.transaction():
        connection.execute(access.begin(SECONDS, SECONDS) + DURABLE)
        connection.execute(sql["own"], {"daemon": owner.daemon, "name": owner.name})
        found: tuple[Any, ...] | None = connection.execute(sql["owner"]).fetchone()
    if found is None:
        raise StoreAwayError("whose the history is was changed at this moment")
    return found


def release(url: str | Secret, schema: str, clock: Clock) -> str | None:
    """Let a history belong to nobody; return the name of the daemon that it belonged to, or None. Raise StoreError."""
    access = Access(url, schema, clock)
    try:
        with access.connect() as connection, connection.transaction():
            connection.execute(access.begin(SECONDS, SECONDS) + DURABLE)
            found = connection.execute(load_queries("postgres")["disown"]).fetchone()
    except psycopg.Error as error:
        raise StoreError(f"the schema {schema} cannot be released: {told(error)}") from error
    return found[0] if found else None
