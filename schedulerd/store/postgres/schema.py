"""The schema of a history in PostgreSQL: its version, and its migration."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from ...core.errors import StoreAwayError, StoreError
from ..queries import load_migrations
from .connection import DURABLE, Access, Connection, format_error

log = logging.getLogger(__name__)

OLDEST_SERVER = 130000  # as `server_version` of libpq: PostgreSQL 13
LOCK_SECONDS = 60.0
OF_OTHERS = """
    SELECT relname FROM pg_class AS one WHERE relnamespace = to_regnamespace(%(schema)s) AND relkind IN ('r', 'v', 'p')
        AND NOT EXISTS (
            SELECT 1 FROM pg_class WHERE relnamespace = one.relnamespace AND relname = 'schedulerd_migrations'
        )
    LIMIT 1
"""
TRIES = 5
ANOTHER_WAS_FIRST = (  # errors when two daemons create the same schema or table at the same moment
    psycopg.errors.UniqueViolation, psycopg.errors.DuplicateSchema, psycopg.errors.DuplicateTable,
)  # fmt: skip


def newest_version() -> int:
    """Return the schema version of this version of schedulerd."""
    return load_migrations("postgres")[-1][0]


def version_of(connection: Connection, schema: str) -> int:
    """Return the version of a history, 0 when there is none."""
    found = connection.execute("SELECT to_regclass(%s)", (f'"{schema}".schedulerd_migrations',)).fetchone()
    if found is None or found[0] is None:
        return 0
    newest = f'SELECT coalesce(max(number), 0) FROM "{schema}".schedulerd_migrations'  # noqa: S608 - checked by SCHEMA_PATTERN
    row = connection.execute(newest).fetchone()
    return int(row[0]) if row else 0


def check_version(connection: Connection, schema: str) -> int:
    """Return the version of a history. Raise StoreError for a newer one, or an unsuitable database.

    Raise StoreAwayError on a standby, which may lack recorded starts.
    """
    _check_database(connection)
    (is_standby,) = connection.execute("SELECT pg_is_in_recovery()").fetchone() or (False,)
    if is_standby:
        raise StoreAwayError("this PostgreSQL server is a standby: the history is written on the primary")
    version, newest = version_of(connection, schema), newest_version()
    if version > newest:
        raise StoreError(
            f"the schema {schema} was written by a newer schedulerd (version {version}; this version supports {newest}):"
            " upgrade"
        )
    return version


def _check_database(connection: Connection) -> None:
    server, encoding = connection.info.server_version, connection.info.parameter_status("server_encoding")
    if server < OLDEST_SERVER:
        raise StoreError(f"PostgreSQL {server // 10000} is too old: version 13 or newer is required")
    if encoding != "UTF8":
        raise StoreError(
            f"the database {connection.info.dbname} has the encoding {encoding}, which cannot store every text: create"
            " another one for the history, CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


def migrate(connection: Connection, access: Access) -> list[str]:
    """Migrate a history, each migration in a transaction of its own; return the names of the migrations applied.

    Two daemons may do so at the same time: each migration holds a lock on the table of migrations and checks it. Raise
    StoreAwayError when a retry may succeed, StoreError otherwise.
    """
    with _translated(access):
        if check_version(connection, access.schema) == newest_version():
            return []
        _check_empty(connection, access.schema)
        _create_table(connection, access)
        return [step[1] for step in load_migrations("postgres") if _apply_migration(connection, access, *step)]


def is_current(connection: Connection, access: Access) -> bool:
    """Return whether no migration is needed. Raise StoreAwayError when a retry may succeed, StoreError otherwise."""
    with _translated(access):
        return check_version(connection, access.schema) == newest_version()


@contextmanager
def _translated(access: Access) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(
            f"the schema {access.schema} cannot be created or migrated: {format_error(error)}; let its owner run"
            " `schedulerctl db migrate`"
        ) from error
    except psycopg.Error as error:
        raise StoreAwayError(f"the schema {access.schema} could not be migrated: {format_error(error)}") from error


def _check_empty(connection: Connection, schema: str) -> None:
    """Raise StoreError for a schema with tables of another program."""
    found = connection.execute(OF_OTHERS, {"schema": schema}).fetchone()
    if found is not None:
        raise StoreError(
            f"the schema {schema} belongs to another program (it has the table {found[0]}): set another one in store_schema:"
        )


def _create_table(connection: Connection, access: Access) -> None:
    """Create the schema and the table of migrations if they do not exist."""
    for last in range(TRIES):
        try:
            with connection.transaction():
                connection.execute(access.begin(LOCK_SECONDS, LOCK_SECONDS) + DURABLE)
                there = connection.execute("SELECT to_regnamespace(%s)", (access.schema,)).fetchone()
                if there is None or there[0] is None:
                    connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{access.schema}"')
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS schedulerd_migrations (number integer PRIMARY KEY, name text NOT NULL)"
                )
            return
        except ANOTHER_WAS_FIRST:
            if last == TRIES - 1:
                raise


def _apply_migration(connection: Connection, access: Access, number: int, name: str, script: str) -> bool:
    """Apply a migration unless it was applied already; return whether it was applied here."""
    with connection.transaction():
        connection.execute(access.begin(0, LOCK_SECONDS) + DURABLE)
        connection.execute("LOCK TABLE schedulerd_migrations IN EXCLUSIVE MODE")
        done = connection.execute("SELECT 1 FROM schedulerd_migrations WHERE number = %s", (number,)).fetchone()
        if done is not None:
            return False
        log.info("migrating the schema %s: %s", access.schema, name)
        connection.execute(script)
        connection.execute("INSERT INTO schedulerd_migrations VALUES (%s, %s)", (number, name))
    return True
