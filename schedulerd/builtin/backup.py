"""The built-in `backup`: a whole, checked copy of a SQLite database, by SQLite's online backup API.

Written to a hidden name, checked, hashed, fsynced, and only then renamed and entered into the catalogue: what is listed is
whole. Afterwards old backups of the job go by `keep`; only files of the catalogue are ever deleted, never the newest.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import quote

from ..errors import SchedulerdError
from ..model import Backup, Overlap, Result, Status
from ..policy import expired
from ..store import durable
from . import Context

SQLITE = "sqlite://"


class BackupError(SchedulerdError):
    """A backup could not be made, or is not whole; nothing of it is left."""


def run(context: Context) -> Result:
    """Make a backup, enter it into the catalogue, and let old ones go."""
    source = str(context.options["source"])
    url = context.url_of(source)
    if not url.startswith(SQLITE):
        raise BackupError(f"the source {source!r} is not a SQLite file: only sqlite:// sources can be backed up")
    folder = _folder_of(context)
    context.check_stop()
    backup = _make(context, url.removeprefix(SQLITE), folder, source)
    durable(context.store.add_backup(backup))
    gone = _let_go(context)
    details = {"filename": backup.filename, "size_bytes": backup.size_bytes, "sha256": backup.sha256, "expired": gone}
    return Result(Status.SUCCESS, 1, f"{backup.filename}, {backup.size_bytes} bytes", details=details)


def _folder_of(context: Context) -> str:
    folder = context.options["directory"] or os.path.join(context.config.state_dir, "backups")
    os.makedirs(folder, 0o700, exist_ok=True)
    if os.path.islink(folder):
        raise BackupError(f"{folder} is a symbolic link: name the real folder")
    if context.job.overlap is not Overlap.ALLOW:  # a crash may have left the half of an earlier one
        for name in os.listdir(folder):
            if name.startswith(f".{context.job.job_id}-") and name.endswith(".partial"):
                os.unlink(os.path.join(folder, name))
    return folder


def _make(context: Context, database: str, folder: str, source: str) -> Backup:
    now = context.clock.now()
    filename = f"{context.job.job_id}-{source}-{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z.db"
    path = os.path.join(folder, filename)
    if os.path.lexists(path):
        raise BackupError(f"{path} is there already")
    with _partial(os.path.join(folder, f".{context.job.job_id}-{context.run.run_id}.partial")) as partial:
        _copy(database, partial)
        context.check_stop()
        size, digest = _fsync_and_hash(partial)
        os.rename(partial, path)
    _fsync_folder(folder)
    return Backup(filename, path, size, digest, now, context.job.job_id, context.run.run_id)


@contextmanager
def _partial(path: str) -> Iterator[str]:
    """Make an empty private file for the copy, and leave nothing of it under that name."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    try:
        yield path
    finally:
        for left in (path, path + "-journal", path + "-wal", path + "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(left)


def _copy(database: str, partial: str) -> None:
    """Copy a live database as it is at one moment, and check the copy."""
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(database)}?mode=ro", timeout=60.0, uri=True)) as live,
            closing(sqlite3.connect(partial, isolation_level=None)) as copy,
        ):
            copy.execute("PRAGMA synchronous=OFF")  # the whole file is fsynced below
            live.backup(copy)  # in one step: writers go on beside it (WAL), and it need not begin again
            copy.execute("PRAGMA journal_mode=DELETE")  # so that it is one file, without a -wal beside it
            found = [row[0] for row in copy.execute("PRAGMA integrity_check")]
    except sqlite3.Error as error:
        raise BackupError(f"{database} could not be backed up: {error}") from error
    if found != ["ok"]:
        raise BackupError(f"the copy of {database} is damaged: {'; '.join(found[:3])}")


def _fsync_and_hash(path: str) -> tuple[int, str]:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        os.fsync(file.fileno())
        return file.tell(), digest.hexdigest()


def _fsync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _let_go(context: Context) -> list[str]:
    """Delete what `keep` does not keep of this job's backups; return the names."""
    own = {one.created_at: one for one in context.store.backups() if one.job_id == context.job.job_id}
    keep = {name: count for name, count in (context.options["keep"] or {}).items() if count}
    gone = []
    for created_at in expired(list(own), keep):
        backup = own[created_at]
        with suppress(FileNotFoundError):
            os.unlink(backup.path)
        durable(context.store.remove_backup(backup.path))
        gone.append(backup.filename)
    return gone
