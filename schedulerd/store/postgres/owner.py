"""The owner of a history in PostgreSQL: one daemon, because a second one would record the runs of the first as lost.

A history in a file needs no owner row: the daemon holds a lock on the file while it runs, and the kernel releases it.
"""

from __future__ import annotations

from typing import Any

import psycopg

from ...core.clock import Clock
from ...core.errors import StoreAwayError, StoreError
from ...core.models import Secret
from ...host.identity import Owner
from ..queries import load_queries
from .connection import DURABLE, Access, Connection, format_error

TIMEOUT_SECONDS = 10.0  # of a statement, and of waiting for a lock


class OwnedError(StoreError):
    """The history belongs to another daemon: an operator has to decide. The exit status is EX_CONFIG of sysexits.h."""

    exit_status = 78


def own(connection: Connection, access: Access, owner: Owner) -> None:
    """Make a daemon the owner of a history that has none.

    Raise OwnedError when another daemon owns it, StoreError when the role lacks rights, psycopg.Error for other failures.
    """
    try:
        daemon, name, since = _owner_row(connection, access, owner)
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(
            f"{format_error(error)}: grant the daemon's role its rights on all tables of the schema"
            f" {access.schema} again: an upgrade has added a table (see docs/operations.md, A history in PostgreSQL)"
        ) from error
    if daemon != owner.daemon:
        raise OwnedError(
            f"the schema {access.schema} belongs to the daemon on {name} since {since:%Y-%m-%dT%H:%M:%SZ}; two daemons would"
            " record each other's runs as lost: set another schema in store_schema:, or, if that daemon is stopped for good"
            " and this one replaces it, run `schedulerctl db release`"
        )


def _owner_row(connection: Connection, access: Access, owner: Owner) -> tuple[Any, ...]:
    sql = load_queries("postgres")
    with connection.transaction():
        connection.execute(access.begin(TIMEOUT_SECONDS, TIMEOUT_SECONDS) + DURABLE)
        connection.execute(sql["own"], {"daemon": owner.daemon, "name": owner.name})
        found: tuple[Any, ...] | None = connection.execute(sql["owner"]).fetchone()
    if found is None:
        raise StoreAwayError("the owner of the history changed at this moment")
    return found


def release(url: str | Secret, schema: str, clock: Clock) -> str | None:
    """Remove the owner of a history. Return the name of the daemon that owned it, or None. Raise StoreError."""
    access = Access(url, schema, clock)
    try:
        with access.connect() as connection, connection.transaction():
            connection.execute(access.begin(TIMEOUT_SECONDS, TIMEOUT_SECONDS) + DURABLE)
            found = connection.execute(load_queries("postgres")["disown"]).fetchone()
    except psycopg.Error as error:
        raise StoreError(f"the schema {schema} cannot be released: {format_error(error)}") from error
    return found[0] if found else None
