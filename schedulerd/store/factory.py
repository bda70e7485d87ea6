"""Create the store that a URL names."""

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
    """Return whether a URL names a SQLite file. A URL that is a secret names a PostgreSQL database."""
    return isinstance(url, str) and url.startswith(SQLITE)


def path_of(url: str | Secret) -> str | None:
    """Return the path of a SQLite history, None for another store.

    Symbolic links are resolved: lock, write-ahead log and set-aside files are beside the file itself.
    """
    return os.path.realpath(url.removeprefix(SQLITE)) if isinstance(url, str) and is_sqlite(url) else None


@contextmanager
def needing_psycopg() -> Iterator[None]:
    """Raise StoreError with the missing package when an import inside fails."""
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
    """Return the store that a URL names. `state_dir` is that of the daemon that will own it. Raise StoreError."""
    path = path_of(url)
    if path is not None:
        is_own = state_dir is not None and os.path.dirname(path) == os.path.realpath(state_dir)
        return SqliteStore(path, clock, is_own, spool, opens)
    with needing_psycopg():
        from .postgres.store import PostgresStore  # optional: a history in a file needs no psycopg
    return PostgresStore(url, schema, clock, spool, opens, owner_at(state_dir) if state_dir else None)
