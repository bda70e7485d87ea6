"""Which files a SQLite history consists of, and what becomes of a write-ahead log whose history was moved away.

A write-ahead log does not say whose it is: SQLite applies what is at `history.db-wal` to whatever is at `history.db`, and
drops it beside no file. So device and inode of both are noted in the lock file when they are opened, and before the next
opening a log that belongs to another file, or to none, is set aside: never applied to what it is not of, never deleted.
"""

from __future__ import annotations

import glob
import json
import logging
import os
from dataclasses import astuple, dataclass
from datetime import datetime

from ...host.files import fsync_folder
from .damage import free_name

log = logging.getLogger(__name__)

LOG = "-wal"
LEFT = "left"
NOTE = ".lock"  # beside the file; the daemon makes and locks it
MOST_NOTED = 1000  # bytes

Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True, slots=True)
class HistoryFiles:
    """What is at the paths of a history and of its write-ahead log; None is nothing, or what nobody can tell."""

    file: Identity | None
    log: Identity | None


def files_at(path: str) -> HistoryFiles:
    """Return what is at the paths of a history now."""
    return HistoryFiles(_identity(path), _identity(path + LOG))


def note(path: str) -> HistoryFiles:
    """Note in the lock file, if there is one, what belongs together, and return it."""
    place = files_at(path)
    try:
        with open(os.open(path + NOTE, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "wb") as file:
            file.write(json.dumps(astuple(place)).encode() + b"\n")
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        pass
    except OSError as error:  # on a full disk the history can be used all the same
        log.warning("%s cannot be written, so that the history must not be moved while it is used: %s", path + NOTE, error)
    return place


def separate_foreign_log(path: str, now: datetime) -> None:
    """Set a write-ahead log aside that is not of the file at `path`; it is logged. Raise OSError."""
    if has_foreign_log(path) or not _size_of(path):
        set_log_aside(path, now)


def has_foreign_log(path: str) -> bool:
    """Return whether the file at `path` was put beside a write-ahead log that was noted with another one. Raise OSError."""
    found, noted = files_at(path), _noted(path)
    return noted is not None and found.log == noted.log and found.file != noted.file and _size_of(path + LOG) > 0


def set_log_aside(path: str, now: datetime) -> None:
    """Rename the write-ahead log beside `path`, and say so, unless nothing is in it. Raise OSError."""
    if not _size_of(path + LOG):
        return
    aside = free_name(path, LEFT, now)
    os.rename(path + LOG, aside + LOG)
    fsync_folder(os.path.dirname(path) or ".")
    log.error("%s", way_out(path, aside + LOG))


def orphaned_logs(path: str) -> list[str]:
    """Return the write-ahead logs that were set aside and are still there, oldest first."""
    return sorted(glob.glob(f"{glob.escape(path)}.{LEFT}-*{LOG}"))


def way_out(path: str, left: str) -> str:
    """Return in words what to do about a write-ahead log that was set aside."""
    history = left.removesuffix(LOG)
    return (
        f"the history that was at {path} was moved away, and its newest changes stayed behind: they are in {left}. To get "
        f"them, move that history to {history}: sqlite3 {history} shows both as one; then move them away"
    )


def _noted(path: str) -> HistoryFiles | None:
    """Return what the lock file notes; None when that is nothing."""
    try:
        with open(path + NOTE, "rb") as file:
            found, of_log = json.loads(file.read(MOST_NOTED))
            return HistoryFiles(tuple(found), tuple(of_log))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _identity(path: str) -> Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
