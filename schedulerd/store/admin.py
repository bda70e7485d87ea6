"""Operations on a history without a daemon: status, migration, release of its owner."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from urllib.parse import quote

from ..core.clock import Clock
from ..core.errors import StoreError
from ..core.models import Secret
from .factory import is_sqlite, needing_psycopg, path_of, store_at
from .queries import load_migrations, load_queries
from .sqlite.damage import COMPANIONS, check_file_type, damage_of_header
from .sqlite.files import has_foreign_log
from .status import StoreStatus

COUNTED_SINCE = 2  # the schema version of SQLite since which the ledger has counters


def status_of(url: str | Secret, schema: str, clock: Clock) -> StoreStatus:
    """Return the status of a history without changing it. Raise StoreError when there is none or it cannot be read."""
    path = path_of(url)
    if path is not None:
        return _of_file(path)
    with needing_psycopg():
        from .postgres.status import schema_status  # optional: a history in a file needs no psycopg
    return schema_status(url, schema, clock)


def migrate(url: str | Secret, schema: str, clock: Clock) -> None:
    """Migrate a history. Raise StoreError when that fails, and for a damaged history, which is not changed."""
    path = path_of(url)
    if path is not None:
        status_of(url, schema, clock)
        _check_whole(path)
    store_at(url, schema, clock).close()


def release(url: str | Secret, schema: str, clock: Clock) -> str | None:
    """Remove the owner of a history. Return the name of the daemon that owned it, or None. Raise StoreError."""
    if is_sqlite(url):
        raise StoreError("a history in a file has no owner but the daemon that runs on it: there is nothing to release")
    with needing_psycopg():
        from .postgres.owner import release as disown  # optional: a history in a file needs no psycopg
    return disown(url, schema, clock)


def _of_file(path: str) -> StoreStatus:
    check_file_type(path)
    try:
        os.stat(path)
    except PermissionError:
        raise StoreError(f"{path}: permission denied: only root and the user of the daemon can read it") from None
    except OSError as error:
        raise StoreError(f"{path}: there is no history ({error.strerror})") from None
    if (wrong := damage_of_header(path)) is not None:
        raise StoreError(f"{path} is not a complete history: {wrong}")
    if has_foreign_log(path):
        raise StoreError(f"{path}-wal belongs to an earlier history at this path: start schedulerd, which sets it aside")
    try:
        with closing(_read_only(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            runs = dict(connection.execute(load_queries("sqlite")["counts"])) if version >= COUNTED_SINCE else {}
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read as a history: {error}") from error
    sizes = [os.stat(path + name).st_size for name in COMPANIONS if os.path.exists(path + name)]
    return StoreStatus("SQLite", version, load_migrations("sqlite")[-1][0], sum(sizes), runs)


def _check_whole(path: str) -> None:
    """Check all pages. Raise StoreError for a damaged file."""
    with closing(_read_only(path)) as connection:
        try:
            found = [text for (text,) in connection.execute("PRAGMA quick_check(3)")]
        except sqlite3.Error as error:
            found = [str(error)]
    if found != ["ok"]:
        raise StoreError(f"{path} is damaged: {'; '.join(found)}")


def _read_only(path: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=2.0)
