"""The schema of a history in PostgreSQL: which version it is of, and how it is brought up to date."""

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
ANOTHER_WAS_FIRST = (  # what is said when two daemons make the same schema or table at the same moment
    psycopg.errors.UniqueViolation, psycopg.errors.DuplicateSchema, psycopg.errors.DuplicateTable,
)  # fmt: skip


def newest_version() -> int:
    """Return the version that this program works with."""
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
    """Return the version of a history. Raise StoreError for a newer one, or a database that it cannot be kept in.

    Raise StoreAwayError on a standby, which may lack what was started already.
    """
    _check_database(connection)
    (is_standby,) = connection.execute("SELECT pg_is_in_recovery()").fetchone() or (False,)
    if is_standby:
        raise StoreAwayError("this PostgreSQL is a standby: a history is written on the primary")
    version, newest = version_of(connection, schema), newest_version()
    if version > newest:
        raise StoreError(
            f"the schema {schema} was written by a newer schedulerd (version {version}, this one knows {newest}): upgrade"
        )
    return version


def _check_database(connection: Connection) -> None:
    server, encoding = connection.info.server_version, connection.info.parameter_status("server_encoding")
    if server < OLDEST_SERVER:
        raise StoreError(f"PostgreSQL {server // 10000} is too old: 13 is needed")
    if encoding != "UTF8":
        raise StoreError(
            f"the database {connection.info.dbname} has the encoding {encoding}, which does not keep every text: make"
            " another one for the history, CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


def migrate(connection: Connection, access: Access) -> list[str]:
    """Bring a history up to date, each step in a transaction of its own; return the names of the steps that were taken.

    Two daemons may do so at the same time: each step holds a lock on the table of steps, and looks what is there. Raise
    StoreError when it cannot be, StoreAwayError when it may be possible later.
    """
    with _translated(access):
        if check_version(connection, access.schema) == newest_version():
            return []
        _check_empty(connection, access.schema)
        _begin_table(connection, access)
        return [step[1] for step in load_migrations("postgres") if _step(connection, access, *step)]


def is_current(connection: Connection, access: Access) -> bool:
    """Return whether there is nothing to migrate. Raise StoreError when it cannot be used, StoreAwayError if not now."""
    with _translated(access):
        return check_version(connection, access.schema) == newest_version()


@contextmanager
def _translated(access: Access) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(
            f"the schema {access.schema} cannot be made or brought up to date: {format_error(error)}; let its owner run"
            " `schedulerctl db migrate`"
        ) from error
    except psycopg.Error as error:
        raise StoreAwayError(f"the schema {access.schema} could not be brought up to date: {format_error(error)}") from error


def _check_empty(connection: Connection, schema: str) -> None:
    """Raise StoreError for a schema that somebody else has tables in."""
    found = connection.execute(OF_OTHERS, {"schema": schema}).fetchone()
    if found is not None:
        raise StoreError(
            f"the schema {schema} is another program's (it has the table {found[0]}): name another one in store_schema:"
        )


def _begin_table(connection: Connection, access: Access) -> None:
    """Make the schema and the table of steps, when they are not there."""
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


def _step(connection: Connection, access: Access, number: int, name: str, script: str) -> bool:
    """Take a step when nobody has; return whether it was taken here."""
    with connection.transaction():
        connection.execute(access.begin(0, LOCK_SECONDS) + DURABLE)
        connection.execute("LOCK TABLE schedulerd_migrations IN EXCLUSIVE MODE")
        done = connection.execute("SELECT 1 FROM schedulerd_migrations WHERE number = %s", (number,)).fetchone()
        if done is not None:
            return False
        log.info("the history's schema %s: %s", access.schema, name)
        connection.execute(script)
        connection.execute("INSERT INTO schedulerd_migrations VALUES (%s, %s)", (number, name))
    return True
