"""Which store a URL names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..core.clock import Clock
from ..core.errors import StoreError
from ..core.models import Secret
from ..host.identity import owner_at
from .outage_spool import OutageSpool
from .sqlite.store import SqliteStore

if TYPE_CHECKING:
    from .postgres.store import PostgresStore

SQLITE = "sqlite://"


def is_sqlite(url: str | Secret) -> bool:
    """Return whether a URL names a SQLite file; one that is a secret names a PostgreSQL."""
    return isinstance(url, str) and url.startswith(SQLITE)


def path_of(url: str | Secret) -> str | None:
    """Return the file of a SQLite history, None for another one.

    Links are followed: its lock, its write-ahead log and what is set aside are beside the file itself, however it is named.
    """
    return os.path.realpath(url.removeprefix(SQLITE)) if isinstance(url, str) and is_sqlite(url) else None


@contextmanager
def needing_psycopg() -> Iterator[None]:
    """Say what is missing when an import within fails. Raise StoreError."""
    try:
        yield
    except ImportError as error:
        raise StoreError(f"a history in PostgreSQL needs psycopg (Debian: python3-psycopg): {error}") from error


def store_at(
    url: str | Secret,
    schema: str,
    clock: Clock,
    state_dir: str | None = None,
    spool: OutageSpool | None = None,
    opens: bool = True,
) -> SqliteStore | PostgresStore:
    """Return the store that a URL names; `state_dir` is that of the daemon that it will belong to. Raise StoreError."""
    path = path_of(url)
    if path is not None:
        is_own = state_dir is not None and os.path.dirname(path) == os.path.realpath(state_dir)
        return SqliteStore(path, clock, is_own, spool, opens)
    with needing_psycopg():
        from .postgres.store import PostgresStore  # optional: a history in a file needs no psycopg
    return PostgresStore(url, schema, clock, spool, opens, owner_at(state_dir) if state_dir else None)
