"""Open a SQLite file as the history: check it for damage, refuse databases of other programs, migrate it.

A damaged file is renamed, and a new one is created; see `damage.py`. A database of another program is refused and not
changed. A write-ahead log of another database is not applied; see `files.py`.
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
TEMPORARY = (
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL,
)  # fmt: skip


def open_history(path: str, clock: Clock, is_own: bool) -> sqlite3.Connection:
    """Return the connection that writes. Raise StoreAwayError for an error that may be temporary, StoreError otherwise.

    `is_own`: only schedulerd creates files in that folder. Then a file that is no database is set aside as well.
    """
    try:
        return _open_whole(path, clock, is_own)
    except (OSError, sqlite3.Error) as error:
        kind = StoreAwayError if is_away(error) else StoreError
        raise kind(f"{path} cannot be used as the history database: {error}") from error


def is_away(error: BaseException) -> bool:
    """Return whether an error means that the file cannot be used now, and nothing about its content."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in TEMPORARY
    return isinstance(error, OSError)


def is_maybe_committed(error: sqlite3.Error) -> bool:
    """Return whether a commit failed although all of it may be in the write-ahead log.

    It was rolled back in memory only: after a crash, the next process that opens the file would commit it.
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
    log.error("%s is damaged (%s): %s", path, wrong, damage.damage_advice(aside))
    return _open(path)


def _open(path: str) -> sqlite3.Connection:
    if not os.path.exists(path):
        log.info("no history at %s: a new one is created", path)
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
        raise StoreError(
            f"{path} was written by a newer schedulerd (schema {version}; this version supports {newest}): upgrade"
        )
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreError(f"{path} is the database of another program: set another file in store:")


def _migrate(connection: sqlite3.Connection) -> None:
    """Migrate the schema, each migration in a transaction of its own; `user_version` is the last one applied."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, name, script in load_migrations("sqlite"):
        if number > version:
            if version:
                log.info("migrating the history (%s): this can take a while with many rows", name)
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
