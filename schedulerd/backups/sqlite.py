"""SQLite: a copy of a live database as it is at one moment, by the online backup API (sqlite.org/backup.html)."""

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
from .commands import tell
from .source import BackupError, Copied, Kind, Order, RefutedError

BUSY_SECONDS = 60.0
POLL_SECONDS = 0.5  # signals are heard in between
PAGES = 4096  # ... and after so many pages
STEPS = 100_000  # ... or so many instructions of SQLite's machine
SCHEME = "sqlite://"


def _copy(order: Order, path: str) -> Copied:
    database = order["url"].removeprefix(SCHEME)
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(database)}?mode=ro", timeout=POLL_SECONDS, uri=True)) as live,
            closing(sqlite3.connect(path, isolation_level=None)) as copy,
        ):
            copy.execute("PRAGMA synchronous=OFF")  # the whole file is fsynced later
            _begin_reading(live)  # all of it as of now: writers go on beside it (WAL), and it need not begin again
            live.backup(copy, pages=PAGES, progress=_heard)
            copy.execute("PRAGMA journal_mode=DELETE")  # so that it is one file, without a -wal beside it
    except sqlite3.Error as error:
        raise BackupError(f"{database} could not be backed up: {_told(error)}") from error
    return Copied(f"SQLite {sqlite3.sqlite_version}")


def _size(order: Order) -> int:
    try:
        return os.path.getsize(order["url"].removeprefix(SCHEME))
    except OSError:
        return 0  # making the copy will tell


def _begin_reading(live: sqlite3.Connection) -> None:
    """Hold the database as it is now. Raise sqlite3.Error, when it was locked for BUSY_SECONDS, too."""
    live.execute("BEGIN")
    for attempt in range(1, int(BUSY_SECONDS / POLL_SECONDS) + 1):
        try:
            live.execute("SELECT 1 FROM sqlite_master").fetchone()
            return
        except sqlite3.OperationalError as error:
            if _code(error) & 0xFF != sqlite3.SQLITE_BUSY or attempt * POLL_SECONDS >= BUSY_SECONDS:
                raise


def _heard(status: int, _left: int, _all: int) -> None:
    """Let a signal unwind, between two steps of a copy; who holds the database as it is cannot be locked out any more."""
    if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):  # sqlite3 would try again without end
        raise BackupError("the database was locked while it was read")


def _told(error: sqlite3.Error) -> str:
    if _code(error) == sqlite3.SQLITE_READONLY_ROLLBACK:
        return (
            "who wrote in it last was killed in the middle, and left a journal: let the application open it again, or "
            "`sqlite3 FILE 'SELECT 1 FROM sqlite_master'`"
        )
    return _kept(error)


def _kept(error: sqlite3.Error) -> str:
    tell(f"{error}\n")
    return sqlite_words(str(error), error)


def _check(order: Order, path: str) -> None:
    try:
        with closing(_read_only(path)) as copy:
            found = [row[0] for row in _rows(copy, "PRAGMA integrity_check")]
    except sqlite3.Error as error:
        raise BackupError(f"the copy of {order['source']} is damaged: {_kept(error)}") from None
    if found != ["ok"]:
        tell("\n".join([*found, ""]))
        raise BackupError(f"the copy of {order['source']} is damaged: {'; '.join(map(sqlite_words, found[:3]))}")


def _restore(order: Order, path: str, scratch: str) -> None:
    """Open a copy that may be written, as an application would, and ask the assertions."""
    restored = os.path.join(scratch, "restored.db")
    os.rename(path, restored)
    _check(order, restored)
    with closing(sqlite3.connect(restored, isolation_level=None)) as connection:
        for text in order["assertions"]:
            try:
                row = next(_rows(connection, text), None)
            except sqlite3.Error as error:
                raise RefutedError(f"the assertion {text!r} failed: {_kept(error)}") from None
            if row is None or not row[0]:
                raise RefutedError(f"the assertion {text!r} is not true: {row[0] if row else 'no row'}")
    with suppress(FileNotFoundError):
        os.unlink(restored)


def _rows(connection: sqlite3.Connection, statement: str) -> Iterator[Any]:
    """Yield what a statement gives. A signal ends it, and the program: it is no answer."""
    connection.set_progress_handler(lambda: 0, STEPS)  # Python hears signals in it
    try:
        yield from connection.execute(statement)
    except sqlite3.OperationalError as error:
        if _code(error) == sqlite3.SQLITE_INTERRUPT:  # SQLite keeps what was raised in the handler to itself
            sys.exit(128 + signal.SIGTERM)
        raise


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's own code, extended; 0 when Python found the error."""
    return getattr(error, "sqlite_errorcode", 0)


def _read_only(path: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)


KIND = Kind(".db", _copy, _check, _size, _restore)
