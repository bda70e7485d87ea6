"""A scratch database on a PostgreSQL server, for a restore drill."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from ..secrets.database_errors import postgresql_error
from ..secrets.urls import mask_url
from .commands import write_output
from .source import BackupError, RefutedError
from .urls import with_database

CONNECT_SECONDS = 30
PREFIX = "schedulerd_drill_"


@contextmanager
def scratch_database(server: str, owner: str, run_id: str) -> Iterator[str]:
    """Provide the URL of an empty database on `server` (a URL), and drop it afterwards. Raise BackupError.

    `owner` identifies the job. Databases that killed runs of the same owner have left are dropped first.
    """
    prefix = f"{PREFIX}{hashlib.blake2b(owner.encode(), digest_size=8).hexdigest()}_"
    name = prefix + run_id.replace("-", "")[-20:]  # PostgreSQL truncates names to 63 bytes
    url = with_database(server, name)
    with _connected(server) as connection:
        for (old,) in connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [prefix]
        ).fetchall():
            connection.execute(_named("DROP DATABASE {} WITH (FORCE)", old))
        connection.execute(_named("CREATE DATABASE {} TEMPLATE template0", name))
    try:
        with _reported_errors(server):
            yield url
    finally:
        with _connected(server) as connection:  # a new one: a server may close a connection that is idle during the restore
            connection.execute(_named("DROP DATABASE IF EXISTS {} WITH (FORCE)", name))


@contextmanager
def _connected(server: str) -> Iterator[psycopg.Connection[Any]]:
    with _reported_errors(server), psycopg.connect(server, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
        yield connection


@contextmanager
def _reported_errors(server: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        write_output(mask_url(f"{error}\n", server))
        raise BackupError(f"scratch database: {mask_url(postgresql_error(error), server)}") from None


def _named(statement: str, name: str) -> sql.Composed:
    return sql.SQL(statement).format(sql.Identifier(name))


def check_assertions(assertions: Sequence[str], url: str) -> None:
    """Execute each assertion. The first value that it returns must be true. Raise RefutedError, or an error of psycopg."""
    with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
        for text in assertions:
            try:
                row = connection.execute(text.encode()).fetchone()
            except psycopg.OperationalError:
                raise  # the connection was lost: that is not a fault of the backup
            except psycopg.Error as error:
                write_output(mask_url(f"{error}\n", url))
                raise RefutedError(f"the assertion {text!r} failed: {mask_url(postgresql_error(error), url)}") from None
            if row is None or not row[0]:
                raise RefutedError(f"the assertion {text!r} does not hold: {row[0] if row else 'no row'}")
