"""The files of a SQLite history, and write-ahead logs whose history was moved away.

A write-ahead log does not name its database: SQLite applies `history.db-wal` to any file at `history.db`, and deletes it
when there is none. So device and inode of both are noted in the lock file when they are opened. Before the next opening, a
log that belongs to another database, or to none, is set aside. It is never applied to a foreign database and never deleted.
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
NOTE = ".lock"  # suffix of the lock file, which the daemon creates and locks
MOST_NOTED = 1000  # bytes

Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True, slots=True)
class HistoryFiles:
    """The identities of the files at the paths of a history and of its write-ahead log; None: no file, or unknown."""

    file: Identity | None
    log: Identity | None


def files_at(path: str) -> HistoryFiles:
    """Return the files at the paths of a history now."""
    return HistoryFiles(_identity(path), _identity(path + LOG))


def note(path: str) -> HistoryFiles:
    """Note in the lock file, if there is one, which files belong together, and return them."""
    place = files_at(path)
    try:
        with open(os.open(path + NOTE, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "wb") as file:
            file.write(json.dumps(astuple(place)).encode() + b"\n")
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        pass
    except OSError as error:  # as on a full disk: the history can be used nevertheless
        log.warning("%s cannot be written; do not move the history while it is used: %s", path + NOTE, error)
    return place


def separate_foreign_log(path: str, now: datetime) -> None:
    """Set a write-ahead log aside that does not belong to the file at `path`, and log that. Raise OSError."""
    if has_foreign_log(path) or not _size_of(path):
        set_log_aside(path, now)


def has_foreign_log(path: str) -> bool:
    """Return whether the write-ahead log beside `path` was noted with another database. Raise OSError."""
    found, noted = files_at(path), _noted(path)
    return noted is not None and found.log == noted.log and found.file != noted.file and _size_of(path + LOG) > 0


def set_log_aside(path: str, now: datetime) -> None:
    """Rename the write-ahead log beside `path`, and log that, unless it is empty. Raise OSError."""
    if not _size_of(path + LOG):
        return
    aside = free_name(path, LEFT, now)
    os.rename(path + LOG, aside + LOG)
    fsync_folder(os.path.dirname(path) or ".")
    log.error("%s", orphan_advice(path, aside + LOG))


def orphaned_logs(path: str) -> list[str]:
    """Return the write-ahead logs that were set aside and still exist, oldest first."""
    return sorted(glob.glob(f"{glob.escape(path)}.{LEFT}-*{LOG}"))


def orphan_advice(path: str, left: str) -> str:
    """Return what an operator can do about a write-ahead log that was set aside."""
    history = left.removesuffix(LOG)
    return (
        f"the history that was at {path} was moved away without its newest changes, which are in {left}. To merge them, "
        f"move that history to {history} and open it with sqlite3 {history}; then move it away"
    )


def _noted(path: str) -> HistoryFiles | None:
    """Return the files that the lock file notes; None when it notes none."""
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
