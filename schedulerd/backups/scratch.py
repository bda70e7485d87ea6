"""A database of its own on a PostgreSQL server, for a restore that is only tried."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from ..secrets.database_errors import postgresql_error
from ..secrets.urls import mask_url
from .commands import tell
from .source import BackupError, RefutedError
from .urls import with_database

CONNECT_SECONDS = 30
PREFIX = "schedulerd_drill_"


@contextmanager
def scratch_database(server: str, owner: str, run_id: str) -> Iterator[str]:
    """Lend the URL of an empty database on `server` (a URL), and drop it afterwards. Raise BackupError.

    `owner` is who makes them one after the other: what a run of its that was killed has left is dropped first.
    """
    prefix = f"{PREFIX}{hashlib.blake2b(owner.encode(), digest_size=8).hexdigest()}_"
    name = prefix + run_id.replace("-", "")[-20:]  # PostgreSQL cuts names at 63 bytes
    url = with_database(server, name)
    with _connected(server) as connection:
        for (old,) in connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [prefix]
        ).fetchall():
            connection.execute(_named("DROP DATABASE {} WITH (FORCE)", old))
        connection.execute(_named("CREATE DATABASE {} TEMPLATE template0", name))
    try:
        with _told(server):
            yield url
    finally:
        with _connected(server) as connection:  # anew: a server may cut off who is idle for as long as a restore lasts
            connection.execute(_named("DROP DATABASE IF EXISTS {} WITH (FORCE)", name))


@contextmanager
def _connected(server: str) -> Iterator[psycopg.Connection[Any]]:
    with _told(server), psycopg.connect(server, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
        yield connection


@contextmanager
def _told(server: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        tell(mask_url(f"{error}\n", server))
        raise BackupError(f"the scratch database: {mask_url(postgresql_error(error), server)}") from None


def _named(statement: str, name: str) -> sql.Composed:
    return sql.SQL(statement).format(sql.Identifier(name))


def hold(assertions: Sequence[str], url: str) -> None:
    """Ask each assertion, whose first value must be true. Raise RefutedError, or whatever psycopg raises."""
    with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
        for text in assertions:
            try:
                row = connection.execute(text.encode()).fetchone()
            except psycopg.OperationalError:
                raise  # the server went away: that says nothing about the backup
            except psycopg.Error as error:
                tell(mask_url(f"{error}\n", url))
                raise RefutedError(f"the assertion {text!r} failed: {mask_url(postgresql_error(error), url)}") from None
            if row is None or not row[0]:
                raise RefutedError(f"the assertion {text!r} is not true: {row[0] if row else 'no row'}")
