"""What an operator asks of a history without a daemon: how it stands, and to bring it up to date."""

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

COUNTED_SINCE = 2  # the version of a SQLite history from which on the numbers are kept with the rows


def standing(url: str | Secret, schema: str, clock: Clock) -> StoreStatus:
    """Return how a history stands, and change nothing. Raise StoreError when there is none, or it cannot be read."""
    path = path_of(url)
    if path is not None:
        return _of_file(path)
    with needing_psycopg():
        from .postgres.status import schema_status  # optional: a history in a file needs no psycopg
    return schema_status(url, schema, clock)


def migrate(url: str | Secret, schema: str, clock: Clock) -> None:
    """Bring a history up to date. Raise StoreError when that cannot be, and for a damaged one, which is left alone."""
    path = path_of(url)
    if path is not None:
        standing(url, schema, clock)
        _check_whole(path)
    store_at(url, schema, clock).close()


def release(url: str | Secret, schema: str, clock: Clock) -> str | None:
    """Let a history belong to nobody; return the name of the daemon that it belonged to, or None. Raise StoreError."""
    if is_sqlite(url):
        raise StoreError("a history in a file belongs to the daemon that runs on it: there is nothing to release")
    with needing_psycopg():
        from .postgres.owner import release as disown  # optional: a history in a file needs no psycopg
    return disown(url, schema, clock)


def _of_file(path: str) -> StoreStatus:
    check_file_type(path)
    try:
        os.stat(path)
    except PermissionError:
        raise StoreError(f"{path}: only root and the daemon's own user may look there") from None
    except OSError as error:
        raise StoreError(f"{path}: there is no history ({error.strerror})") from None
    if (wrong := damage_of_header(path)) is not None:
        raise StoreError(f"{path} is no whole history: {wrong}")
    if has_foreign_log(path):
        raise StoreError(f"{path}-wal belongs to another history, which was there before: start schedulerd to set it aside")
    try:
        with closing(_read_only(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            runs = dict(connection.execute(load_queries("sqlite")["counts"])) if version >= COUNTED_SINCE else {}
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read as a history: {error}") from error
    sizes = [os.stat(path + name).st_size for name in COMPANIONS if os.path.exists(path + name)]
    return StoreStatus("SQLite", version, load_migrations("sqlite")[-1][0], sum(sizes), runs)


def _check_whole(path: str) -> None:
    """Look at all pages. Raise StoreError for a damaged file."""
    with closing(_read_only(path)) as connection:
        try:
            found = [text for (text,) in connection.execute("PRAGMA quick_check(3)")]
        except sqlite3.Error as error:
            found = [str(error)]
    if found != ["ok"]:
        raise StoreError(f"{path} is damaged: {'; '.join(found)}")


def _read_only(path: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=2.0)
