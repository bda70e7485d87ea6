"""SQLite: a copy of a live database as it is at one moment, by the online backup API (sqlite.org/backup.html)."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from urllib.parse import quote

from . import BackupError, Copied, Kind, Order, RefutedError

BUSY_SECONDS = 60.0
SCHEME = "sqlite://"


def _copy(order: Order, path: str) -> Copied:
    database = order["url"].removeprefix(SCHEME)
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(database)}?mode=ro", timeout=BUSY_SECONDS, uri=True)) as live,
            closing(sqlite3.connect(path, isolation_level=None)) as copy,
        ):
            copy.execute("PRAGMA synchronous=OFF")  # the whole file is fsynced later
            live.backup(copy)  # in one step: writers go on beside it (WAL), and it need not begin again
            copy.execute("PRAGMA journal_mode=DELETE")  # so that it is one file, without a -wal beside it
    except sqlite3.Error as error:
        raise BackupError(f"{database} could not be backed up: {error}") from error
    return Copied(f"SQLite {sqlite3.sqlite_version}")


def _check(order: Order, path: str) -> None:
    try:
        with closing(_read_only(path)) as copy:
            found = [row[0] for row in copy.execute("PRAGMA integrity_check")]
    except sqlite3.Error as error:
        found = [str(error)]
    if found != ["ok"]:
        raise BackupError(f"the copy of {order['source']} is damaged: {'; '.join(found[:3])}")


def _restore(order: Order, path: str, scratch: str) -> None:
    """Open a copy that may be written, as an application would, and ask the assertions."""
    restored = os.path.join(scratch, "restored.db")
    os.rename(path, restored)
    _check(order, restored)
    with closing(sqlite3.connect(restored, isolation_level=None)) as connection:
        for text in order["assertions"]:
            try:
                row = connection.execute(text).fetchone()
            except sqlite3.Error as error:
                raise RefutedError(f"the assertion {text!r} failed: {error}") from None
            if row is None or not row[0]:
                raise RefutedError(f"the assertion {text!r} is not true: {row[0] if row else 'no row'}")
    with suppress(FileNotFoundError):
        os.unlink(restored)


def _read_only(path: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)


KIND = Kind(".db", _copy, _check, _restore)
