"""SQLite as a source: a consistent copy of a live database, made with the online backup API (sqlite.org/backup.html)."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any
from urllib.parse import quote

from ..secrets.database_errors import sqlite_words
from .commands import write_output
from .source import BackupError, Order, RefutedError, SourceCopy, SourceType

BUSY_SECONDS = 60.0
POLL_SECONDS = 0.5  # signals are handled in between
PAGES = 4096  # … and after so many pages
STEPS = 100_000  # … or so many instructions of the virtual machine of SQLite
SCHEME = "sqlite://"


def _copy(order: Order, path: str) -> SourceCopy:
    database = order["url"].removeprefix(SCHEME)
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(database)}?mode=ro", timeout=POLL_SECONDS, uri=True)) as live,
            closing(sqlite3.connect(path, isolation_level=None)) as copy,
        ):
            copy.execute("PRAGMA synchronous=OFF")  # the whole file is fsynced later
            _begin_reading(live)  # a consistent snapshot: writers continue (WAL), and the copy need not start again
            live.backup(copy, pages=PAGES, progress=_on_progress)
            copy.execute("PRAGMA journal_mode=DELETE")  # so that it is one file, without a -wal beside it
    except sqlite3.Error as error:
        raise BackupError(f"{database} could not be backed up: {_format_error(error)}") from error
    return SourceCopy(f"SQLite {sqlite3.sqlite_version}")


def _size(order: Order) -> int:
    try:
        return os.path.getsize(order["url"].removeprefix(SCHEME))
    except OSError:
        return 0  # the copy reports it


def _begin_reading(live: sqlite3.Connection) -> None:
    """Start a read transaction. Raise sqlite3.Error, also when the database is locked for BUSY_SECONDS."""
    live.execute("BEGIN")
    for attempt in range(1, int(BUSY_SECONDS / POLL_SECONDS) + 1):
        try:
            live.execute("SELECT 1 FROM sqlite_master").fetchone()
            return
        except sqlite3.OperationalError as error:
            if _code(error) & 0xFF != sqlite3.SQLITE_BUSY or attempt * POLL_SECONDS >= BUSY_SECONDS:
                raise


def _on_progress(status: int, _left: int, _all: int) -> None:
    """Raise BackupError for a lock. Between two steps of a copy, Python handles signals.

    A reader with a snapshot is normally not locked out.
    """
    if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):  # sqlite3 would retry forever
        raise BackupError("the database was locked while it was read")


def _format_error(error: sqlite3.Error) -> str:
    if _code(error) == sqlite3.SQLITE_READONLY_ROLLBACK:
        return (
            "the last writer was killed in a transaction and left a journal: open the database with its application, or "
            "run `sqlite3 FILE 'SELECT 1 FROM sqlite_master'`"
        )
    return _without_values(error)


def _without_values(error: sqlite3.Error) -> str:
    write_output(f"{error}\n")
    return sqlite_words(str(error), error)


def _check(order: Order, path: str) -> None:
    try:
        with closing(_read_only(path)) as copy:
            found = [row[0] for row in _rows(copy, "PRAGMA integrity_check")]
    except sqlite3.Error as error:
        raise BackupError(f"the copy of {order['source']} is damaged: {_without_values(error)}") from None
    if found != ["ok"]:
        write_output("\n".join([*found, ""]))
        raise BackupError(f"the copy of {order['source']} is damaged: {'; '.join(map(sqlite_words, found[:3]))}")


def _restore(order: Order, path: str, scratch: str) -> None:
    """Open the copy for writing, as an application would, and check the assertions."""
    restored = os.path.join(scratch, "restored.db")
    os.rename(path, restored)
    _check(order, restored)
    with closing(sqlite3.connect(restored, isolation_level=None)) as connection:
        for text in order["assertions"]:
            try:
                row = next(_rows(connection, text), None)
            except sqlite3.Error as error:
                raise RefutedError(f"the assertion {text!r} failed: {_without_values(error)}") from None
            if row is None or not row[0]:
                raise RefutedError(f"the assertion {text!r} does not hold: {row[0] if row else 'no row'}")
    with suppress(FileNotFoundError):
        os.unlink(restored)


def _rows(connection: sqlite3.Connection, statement: str) -> Iterator[Any]:
    """Yield the rows of a statement. A signal ends the statement and the program."""
    connection.set_progress_handler(lambda: 0, STEPS)  # Python handles signals in it
    try:
        yield from connection.execute(statement)
    except sqlite3.OperationalError as error:
        if _code(error) == sqlite3.SQLITE_INTERRUPT:  # SQLite discards the exception of the handler
            sys.exit(128 + signal.SIGTERM)
        raise


def _code(error: sqlite3.Error) -> int:
    """Return the extended error code of SQLite, 0 for an error that Python raised."""
    return getattr(error, "sqlite_errorcode", 0)


def _read_only(path: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)


SOURCE_TYPE = SourceType(".db", _copy, _check, _size, _restore)
