"""Damaged SQLite files: detect damage when a file is opened, and set the file aside. Nothing is deleted.

Checks: it is a regular file and begins with the magic string of SQLite; it is as long as its header says; and
`PRAGMA quick_check`, with a time limit. A large file is not checked to its end at each start: damage there is found when
the page is read. The file is marked then, and the next start checks all of it.
"""

from __future__ import annotations

import glob
import logging
import os
import sqlite3
import struct
import threading
from contextlib import suppress
from datetime import datetime

from ...core.errors import StoreError
from ...host import files
from ...host.files import fsync_folder

log = logging.getLogger(__name__)

MAGIC = b"SQLite format 3\0"  # this and the offsets below: https://www.sqlite.org/fileformat.html
HEADER_BYTES = 100
CHECK_SECONDS = 3.0  # for quick_check, which checks about 200 MB a second
COMPANIONS = ("", "-wal", "-shm")
SUSPECT = ".suspect"  # suffix of the mark: damage was found while the file was in use
NO_MAGIC = "it does not begin with the magic string of a SQLite database"


def check_file_type(path: str) -> None:
    """Raise StoreError for a path that cannot be a database and is not to be changed: a folder, a device, a socket."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise StoreError(f"{path} cannot be used as the history database: it is not a regular file (see store:)")


def damage_of_header(path: str) -> str | None:
    """Return what is wrong with the header or the length of a file, or None. Raise OSError."""
    try:
        with open(path, "rb") as file:
            header, size = file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return None
    if not header:
        return None
    if not header.startswith(MAGIC):
        return NO_MAGIC
    if len(header) < HEADER_BYTES:
        return f"it is only {size} bytes long"
    (page_size,) = struct.unpack_from(">H", header, 16)
    change_counter, pages = struct.unpack_from(">II", header, 24)
    (valid_for,) = struct.unpack_from(">I", header, 92)
    expected = pages * (65536 if page_size == 1 else page_size)
    if change_counter == valid_for and size < expected and not _size_of(path + "-wal"):
        return f"it is {size} bytes long instead of {expected}"
    return None


class DamageError(sqlite3.DatabaseError):
    """`quick_check` has found damage."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def check_pages(connection: sqlite3.Connection, path: str) -> None:
    """Check the pages for CHECK_SECONDS, or to the end when damage is suspected.

    Raise DamageError, or an error of SQLite when it cannot continue.
    """
    limit = threading.Timer(threading.TIMEOUT_MAX if is_suspect(path) else CHECK_SECONDS, connection.interrupt)
    limit.start()
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        return
    finally:
        limit.cancel()
        limit.join()
    if found != "ok":
        raise DamageError(" ".join(str(found).split()))
    clear_suspicion(path)


def is_damage(error: BaseException) -> bool:
    """Return whether an error means that the file is damaged (SQLITE_CORRUPT, SQLITE_NOTADB)."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_suspect(path: str) -> bool:
    """Return whether damage was found while the file was in use."""
    return os.path.exists(path + SUSPECT)


def mark_suspect(path: str) -> None:
    """Make the next start check the whole file."""
    try:
        os.close(os.open(path + SUSPECT, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        log.warning("%s cannot be marked as damaged, so the next start may not check all of it: %s", path, error)


def clear_suspicion(path: str) -> None:
    """Remove the mark: the file was checked, or set aside."""
    with suppress(FileNotFoundError):
        os.unlink(path + SUSPECT)


def set_aside(path: str, now: datetime) -> str:
    """Rename a damaged file and its companions; return its new name. Raise OSError."""
    aside = free_name(path, "damaged", now)
    mark_suspect(path)  # in case of a crash between two renames
    for companion in reversed(COMPANIONS):
        with suppress(FileNotFoundError):
            os.rename(path + companion, aside + companion)
    fsync_folder(os.path.dirname(path) or ".")
    clear_suspicion(path)
    return aside


def free_name(path: str, word: str, now: datetime) -> str:
    """Return a free name beside `path`, also for the companions."""
    return files.free_name(path, word, now, COMPANIONS)


def damaged_copies(path: str) -> list[str]:
    """Return the damaged files that were set aside and still exist, oldest first."""
    found = glob.glob(glob.escape(path) + ".damaged-*")
    return sorted(name for name in found if not name.endswith(COMPANIONS[1:]))


def damage_advice(aside: str) -> str:
    """Return what an operator can do about a damaged file that was set aside."""
    return (
        f"the history was damaged and was set aside as {aside}; runs since then are in a new one. To get the old rows back: "
        f"stop schedulerd, restore a backup, or the rows that `sqlite3 {aside} .recover` saves; then move {aside} away"
    )


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
