"""A damaged SQLite file: how it is noticed when it is opened, and how it is set aside, never deleted.

What is looked at: that it is a file and begins as SQLite files do; that it is as long as its header says; and
`PRAGMA quick_check`, for as long as there is patience. A large file is not looked through to its end at each start: what is
damaged there is found when it is read, and is marked then, so that the next start takes all the time that it needs.
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

MAGIC = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html, as are the places of what is read here
HEADER_BYTES = 100
PATIENCE = 3.0  # seconds for quick_check, which gets through about 200 MB each
COMPANIONS = ("", "-wal", "-shm")
SUSPECT = ".suspect"  # beside the file: damage was seen while it was in use
NO_MAGIC = "it does not begin as a SQLite database does"


def check_file_type(path: str) -> None:
    """Raise StoreError for what can be no database of ours and must not be touched: a folder, a device, a socket."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise StoreError(f"{path} cannot be used as the history database: it is no regular file (see store:)")


def damage_of_header(path: str) -> str | None:
    """Return what the first bytes and the length of a file say is wrong with it, or None. Raise OSError."""
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
        return f"it is {size} bytes long, and should be {expected}"
    return None


class DamageError(sqlite3.DatabaseError):
    """`quick_check` has found damage."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def check_pages(connection: sqlite3.Connection, path: str) -> None:
    """Look through the pages for as long as there is patience, or to the end when damage is suspected.

    Raise DamageError, or what SQLite raises when it cannot go on.
    """
    impatience = threading.Timer(threading.TIMEOUT_MAX if is_suspect(path) else PATIENCE, connection.interrupt)
    impatience.start()
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        return
    finally:
        impatience.cancel()
        impatience.join()
    if found != "ok":
        raise DamageError(" ".join(str(found).split()))
    clear_suspicion(path)


def is_damage(error: BaseException) -> bool:
    """Return whether an error says that the file itself is damaged (SQLITE_CORRUPT, SQLITE_NOTADB)."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_suspect(path: str) -> bool:
    """Return whether damage was seen while the file was in use."""
    return os.path.exists(path + SUSPECT)


def mark_suspect(path: str) -> None:
    """Let the next start look through the whole file."""
    try:
        os.close(os.open(path + SUSPECT, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        log.warning("%s cannot be marked as damaged, and the next start may not look through all of it: %s", path, error)


def clear_suspicion(path: str) -> None:
    """Take the mark away: the file was looked through, or set aside."""
    with suppress(FileNotFoundError):
        os.unlink(path + SUSPECT)


def set_aside(path: str, now: datetime) -> str:
    """Rename a damaged file, with what belongs to it, and return its new name. Raise OSError."""
    aside = free_name(path, "damaged", now)
    mark_suspect(path)  # should this be cut off between two names
    for companion in reversed(COMPANIONS):
        with suppress(FileNotFoundError):
            os.rename(path + companion, aside + companion)
    fsync_folder(os.path.dirname(path) or ".")
    clear_suspicion(path)
    return aside


def free_name(path: str, word: str, now: datetime) -> str:
    """Return a name beside `path` that neither a file nor a companion of one has."""
    return files.free_name(path, word, now, COMPANIONS)


def damaged_copies(path: str) -> list[str]:
    """Return the damaged files that were set aside and are still there, oldest first."""
    found = glob.glob(glob.escape(path) + ".damaged-*")
    return sorted(name for name in found if not name.endswith(COMPANIONS[1:]))


def way_out(aside: str) -> str:
    """Return in words what to do about a damaged file that was set aside."""
    return (
        f"the history was damaged and was set aside as {aside}; runs since then are in a new one. To get the old rows back: "
        f"stop schedulerd, put a backup in its place, or what `sqlite3 {aside} .recover` saves; then move {aside} away"
    )


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
