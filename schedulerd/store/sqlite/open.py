"""Open a SQLite file as the history: whole as far as is looked, ours, and of this program's schema.

A damaged file is set aside under another name, and a new one is begun; see `damage.py`. What belongs to somebody else is
refused and left alone. A write-ahead log of another file is not applied; see `sqlite_place.py`.
"""

from __future__ import annotations

import logging
import os
import sqlite3

from ...core.clock import Clock
from ...core.errors import StoreAwayError, StoreError
from ..queries import load_migrations
from . import damage
from .files import separate_foreign_log

log = logging.getLogger(__name__)

BUSY_SECONDS = 2.0
PRAGMAS = (
    "journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=1000", "journal_size_limit=16777216", "foreign_keys=ON",
)  # fmt: skip
COMES_BACK = (
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL,
)  # fmt: skip


def open_history(path: str, clock: Clock, is_own: bool) -> sqlite3.Connection:
    """Return the connection that writes. Raise StoreAwayError for what may pass by itself, StoreError for what does not.

    `is_own` says that nobody but schedulerd puts files there: then also what is no database at all is set aside.
    """
    try:
        return _open_whole(path, clock, is_own)
    except (OSError, sqlite3.Error) as error:
        kind = StoreAwayError if is_away(error) else StoreError
        raise kind(f"{path} cannot be used as the history database: {error}") from error


def is_away(error: BaseException) -> bool:
    """Return whether an error says that the file cannot be used now, and nothing about what is in it."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in COMES_BACK
    return isinstance(error, OSError)


def is_in_the_log(error: sqlite3.Error) -> bool:
    """Return whether a commit failed although all of it may be in the write-ahead log.

    It was taken back in memory alone: whoever opens the file after a kill finds it in the log, and makes it.
    """
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_FSYNC


def _open_whole(path: str, clock: Clock, is_own: bool) -> sqlite3.Connection:
    damage.check_file_type(path)
    separate_foreign_log(path, clock.now())
    wrong = damage.damage_of_header(path)
    if wrong == damage.NO_MAGIC and not is_own:
        raise StoreError(f"{path} cannot be used as the history database: {wrong} (see store:)")
    if wrong is None:
        try:
            return _open(path)
        except sqlite3.DatabaseError as error:
            if not damage.is_damage(error):
                raise
            wrong = str(error)
    aside = damage.set_aside(path, clock.now())
    log.error("%s is damaged (%s): %s", path, wrong, damage.way_out(aside))
    return _open(path)


def _open(path: str) -> sqlite3.Connection:
    if not os.path.exists(path):
        log.info("there is no history at %s: a new one is begun", path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        _check_schema(connection, path)
        damage.check_pages(connection, path)
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_schema(connection: sqlite3.Connection, path: str) -> None:
    """Raise StoreError for a database that this program must not touch."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    newest = load_migrations("sqlite")[-1][0]
    if version > newest:
        raise StoreError(f"{path} was written by a newer schedulerd (schema {version}, this one knows {newest}): upgrade")
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreError(f"{path} is the database of another program: name another file in store:")


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date, each step in a transaction of its own; `user_version` is the last step taken."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, name, script in load_migrations("sqlite"):
        if number > version:
            if version:
                log.info("the history is brought up to date (%s): with many rows that takes a while", name)
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
