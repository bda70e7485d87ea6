"""The catalogue of a folder: its backups are the manifests in it, and nothing that has none ever is touched.

Everything goes through one descriptor of the folder, and no symbolic link is followed: what is listed, read and deleted
is in that folder, which nobody but its maker or root can change (`place.py`). In the folder of a job's user, root has the
rights of that user and no more. A backup is made in a folder of its own, `.JOB-RUN.MAKER.partial`, which is locked while
its run lives, and enters with two renames: the manifest, then the file. It leaves in three steps, of which the first, a
rename of its manifest, takes it out. Whatever a crash leaves behind is told by its name, and whoever comes next finishes
it (`clear`). A manifest whose file somebody took away is a backup that is missing: it counts for nothing, and is told
until it is forgotten.

Several hosts may share a folder: all see all backups, and each counts, lets go and clears up after its own alone (`Maker`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from shlex import quote
from threading import Event
from typing import Any, Self

from ..core.errors import NotFoundError
from ..core.faults import fault_point
from ..core.models import to_micros
from ..host.accounts import chown_argument, name_of
from ..host.descriptors import SHORTAGES, format_os_error
from ..host.files import FOLDER_FLAGS, lock_folder, read_regular
from ..host.impersonation import can_use_all_files, file_access_as
from .clearing import remove_tree
from .entry import Entry, newest_first
from .manifest import FILENAME, MANIFEST_LIMIT, RUN_ID, SUFFIX, Maker, Manifest, from_json, instant, to_json
from .place import opened
from .source import BackupError

log = logging.getLogger(__name__)

GONE = ".gone"
SCRATCH = ".new"
PATIENCE = 600.0  # seconds: what a killed run has left is removed under the lock, and may be large
POLL_SECONDS = 0.1
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Catalogue:
    """The backups of one folder. Use it as a context manager, in one thread, or close it.

    Who may read the folder may keep it locked: others wait for at most `patience` seconds.
    """

    def __init__(
        self, folder: str, is_made: bool = False, makers: Collection[int] = (), patience: float = PATIENCE,
        may_be_theirs: bool = True,
    ) -> None:  # fmt: skip
        """Open a folder, which is made (mode 0700) when it `is_made` by who asks. Raise BackupError when it is not safe.

        `makers` are the users as whom jobs make backups there: it may be theirs. `may_be_theirs`: others could make them.
        """
        self.folder = folder
        self._patience = patience
        self._descriptor = opened(folder, is_made, makers, may_be_theirs)
        self._uid = os.fstat(self._descriptor).st_uid
        self._rights = ExitStack()

    def __enter__(self) -> Self:
        if self._uid and can_use_all_files():
            try:
                self._rights.enter_context(file_access_as(self._uid))
            except OSError as error:
                self.close()
                raise BackupError(f"{self.folder}: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._rights.close()
        self.close()

    def close(self) -> None:
        """Close the folder."""
        os.close(self._descriptor)

    # What there is

    def entries(self) -> list[Entry]:
        """Return the backups, newest first (of several jobs, by the time at which they were made)."""
        found = [entry for entry in map(self._entry, self._names()) if entry is not None]
        return newest_first(found)

    def of_job(self, job_id: str, maker: Maker) -> list[Entry]:
        """Return the backups of a maker's job, the last one that was made first."""
        own = [entry for entry in self.entries() if _is_of(entry.manifest, job_id, maker)]
        return sorted(own, key=lambda each: each.manifest.sequence, reverse=True)

    def _names(self) -> list[str]:
        """Return the names of what may be manifests."""
        return [name for name in os.listdir(self._descriptor) if name.endswith(SUFFIX) and not name.startswith(".")]

    def get(self, filename: str) -> Entry:
        """Return a backup by its name. Raise NotFoundError."""
        entry = self._entry(filename + SUFFIX) if re.fullmatch(FILENAME, filename) else None
        if entry is None:
            raise NotFoundError(f"there is no backup {filename!r} in {self.folder}")
        return entry

    def open(self, filename: str) -> int:
        """Return a descriptor of a backup's file, to read it. Raise NotFoundError, BackupError, or OSError."""
        entry = self.get(filename)
        if entry.is_missing:
            raise NotFoundError(f"the file of the backup {filename!r} is missing from {self.folder}")
        if entry.alien:
            raise BackupError(f"{entry.path} is not read: {entry.alien}")
        descriptor = os.open(filename, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._descriptor)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or self._alien(found):
            os.close(descriptor)
            raise NotFoundError(f"there is no backup {filename!r} in {self.folder}")
        return descriptor

    def _entry(self, name: str) -> Entry | None:
        manifest = self._manifest(name)
        if manifest is None or manifest.filename + SUFFIX != name:
            return None
        try:
            found = os.stat(manifest.filename, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return self._missing(manifest)
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        path = os.path.join(self.folder, manifest.filename)
        return Entry(manifest, path, found.st_size, alien=self._alien(found))

    def _missing(self, manifest: Manifest) -> Entry | None:
        """Return a backup without its file; None when it is just coming in or going.

        Asked in this order: a `partial` folder is there from before the manifest until the file has its name.
        """
        is_coming = self._is_there(_partial_name(manifest.job_id, manifest.run_id, manifest.maker))
        if is_coming or self._is_there(manifest.filename) or not self._is_there(manifest.filename + SUFFIX):
            return None
        return Entry(manifest, os.path.join(self.folder, manifest.filename), 0, is_missing=True)

    def _alien(self, found: os.stat_result) -> str | None:
        """Return why a regular file cannot be one of ours; None: it has a single name, and belongs to who has the folder."""
        if found.st_nlink != 1:
            return f"the file has {found.st_nlink} names (hard links)"
        return None if found.st_uid == self._uid else f"the file belongs to another user ({found.st_uid})"

    def _manifest(self, name: str) -> Manifest | None:
        try:
            return from_json(read_regular(name, MANIFEST_LIMIT, os.O_NOFOLLOW, self._descriptor))
        except OSError as error:
            if error.errno in SHORTAGES:  # a backup that is not seen would be taken for missing, and its place for free
                raise BackupError(f"{self.folder}/{name} cannot be read: {format_os_error(error)}") from error
            return None
        except (ValueError, RecursionError):
            return None  # a foreign file, which is nobody's business here

    # What comes in and goes

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other changes of the catalogue. Raise BackupError when somebody else does for too long."""
        descriptor = self._lock()
        try:
            yield
        finally:
            os.close(descriptor)

    def _lock(self) -> int:
        for _ in range(max(1, int(self._patience / POLL_SECONDS))):
            try:
                return lock_folder(".", self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                Event().wait(POLL_SECONDS)
        is_open = os.fstat(self._descriptor).st_mode & 0o044
        mend = f"; who may read it may lock it: chmod 700 {quote(self.folder)}" if is_open else ""
        waited = f"by another process for {self._patience:g} s now"
        raise BackupError(f"{self.folder} is locked {waited}: `fuser -v {quote(self.folder)}` shows whose{mend}")

    @contextmanager
    def partial(self, job_id: str, run_id: str, maker: Maker) -> Iterator[str]:
        """Lend an empty private folder to work in, which is gone afterwards; it is held against `clear` meanwhile."""
        name = _partial_name(job_id, run_id, maker)
        with self.locked():  # so that `clear` does not come between
            try:
                os.mkdir(name, 0o700, dir_fd=self._descriptor)
            except PermissionError as error:
                raise BackupError(f"{name_of(os.geteuid())} may not write in {self.folder}") from error
            descriptor = lock_folder(name, self._descriptor, fcntl.LOCK_EX)
        try:
            self._check_owner(os.fstat(descriptor).st_uid)
            yield os.path.join(self.folder, name)
        finally:
            remove_tree(name, self._descriptor)
            os.close(descriptor)

    def _check_owner(self, uid: int) -> None:
        """Raise BackupError when what we make is not the folder's owner's: who may write by its group makes such files."""
        if uid != self._uid:
            wanted = f"chown {chown_argument(uid)} {quote(self.folder)}"
            raise BackupError(f"{self.folder} is not {name_of(uid)}'s, as the backups in it would be: {wanted}")

    def enter(self, file: str, manifest: Manifest) -> Manifest:
        """Give a finished, fsynced file of a `partial` folder its name; return its manifest with its place in the order."""
        with self.locked():
            entered = replace(manifest, sequence=self._next_sequence(manifest))
            for name in (manifest.filename, manifest.filename + SUFFIX):
                if self._is_there(name):
                    raise BackupError(f"{os.path.join(self.folder, name)} is there already")
            try:
                self._name(file, entered)
            except BaseException:  # a SIGTERM, too
                if not self._is_there(manifest.filename):
                    with suppress(FileNotFoundError):
                        os.unlink(manifest.filename + SUFFIX, dir_fd=self._descriptor)
                raise
        return entered

    def _name(self, file: str, manifest: Manifest) -> None:
        folder, name = os.path.split(file)
        scratch = os.open(os.path.basename(folder), FOLDER_FLAGS, dir_fd=self._descriptor)
        try:
            self._write(manifest, "manifest", scratch)
            fault_point("backup_named")
            os.rename(name, manifest.filename, src_dir_fd=scratch, dst_dir_fd=self._descriptor)
        finally:
            os.close(scratch)
        os.fsync(self._descriptor)

    def _next_sequence(self, manifest: Manifest) -> int:
        """Return the place of a new backup: after all of its job, whatever the clock says.

        Places are microseconds, so that those which were away while others were made fit in where they belong.
        """
        known = (each for each in map(self._manifest, self._names()) if each is not None)
        last = max((each.sequence for each in known if _is_of(each, manifest.job_id, manifest.maker)), default=0)
        return max(last + 1, to_micros(instant(manifest.created_at)))

    def change(self, filename: str, **changes: Any) -> Manifest:
        """Replace fields of a backup's manifest. Raise NotFoundError."""
        with self.locked():
            changed = replace(self.get(filename).manifest, **changes)
            scratch = f".{filename}{SCRATCH}"
            with suppress(FileNotFoundError):
                os.unlink(scratch, dir_fd=self._descriptor)  # of a crash; the folder is locked
            self._write(changed, scratch, self._descriptor)
            os.fsync(self._descriptor)
        return changed

    def _write(self, manifest: Manifest, scratch: str, folder: int) -> None:
        """Write a manifest as `scratch` of an open folder, and put it in its place.

        Raise BackupError for one that could not be read again.
        """
        data = to_json(manifest)
        if len(data) > MANIFEST_LIMIT:
            raise BackupError(
                f"the manifest of {manifest.filename} would have {len(data)} bytes, more than {MANIFEST_LIMIT}"
            )
        descriptor = os.open(scratch, _NEW, 0o600, dir_fd=folder)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.rename(scratch, manifest.filename + SUFFIX, src_dir_fd=folder, dst_dir_fd=self._descriptor)

    def remove(self, filename: str) -> None:
        """Take a backup out of the catalogue, and delete its file."""
        self._remove(filename, lambda _entry: True)

    def remove_unless_held(self, filename: str) -> bool:
        """Remove a backup, if it is ours and nobody has put it on hold meanwhile; return whether it was removed."""
        return self._remove(filename, lambda entry: entry.manifest.hold is None and entry.alien is None)

    def forget(self, filename: str) -> bool:
        """Take a backup whose file is missing out of the catalogue; return whether it was missing. Raise NotFoundError."""
        return self._remove(filename, lambda entry: entry.is_missing)

    def _remove(self, filename: str, may: Callable[[Entry], bool]) -> bool:
        with self.locked():
            if not may(self.get(filename)):
                return False
            gone = f".{filename}{SUFFIX}{GONE}"
            os.rename(filename + SUFFIX, gone, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            self._finish_removing(filename, gone)
            return True

    def _finish_removing(self, filename: str, gone: str) -> None:
        os.fsync(self._descriptor)
        fault_point("backup_removed")
        with suppress(FileNotFoundError):
            os.unlink(filename, dir_fd=self._descriptor)
        os.unlink(gone, dir_fd=self._descriptor)

    def clear(self, maker: Maker) -> list[str]:
        """Take away what a maker's crashed runs have left, of whatever job, and nothing that belongs to a run that lives."""
        with self.locked():
            names = os.listdir(self._descriptor)
            kinds = (self._cleared_partial, self._cleared_gone, self._cleared_scratch)
            gone = [name for name in names if name.startswith(".") and any(clear(name, maker) for clear in kinds)]
            os.fsync(self._descriptor)
        return gone

    def _cleared_partial(self, name: str, maker: Maker) -> bool:
        found = re.fullmatch(rf"\..+-({RUN_ID})\.{maker.tag}\.partial", name)
        if found is None:
            return False
        try:
            descriptor = lock_folder(name, self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False  # its run lives (BlockingIOError)
        try:
            self._clear_manifest(found[1])
            remove_tree(name, self._descriptor)
        except OSError as error:  # which is no reason to make no backup
            what = f"{self.folder}/{name}, an unfinished backup that may be in the clear"
            log.warning("cannot remove %s: %s", what, error.strerror or error)
            return False
        finally:
            os.close(descriptor)
        return True

    def _clear_manifest(self, run_id: str) -> None:
        """Remove the manifest of a run that was killed between the two renames: its file is still in the partial folder."""
        for name in os.listdir(self._descriptor):
            manifest = self._manifest(name) if name.endswith(SUFFIX) and not name.startswith(".") else None
            if manifest is not None and manifest.run_id == run_id and not self._is_there(manifest.filename):
                os.unlink(name, dir_fd=self._descriptor)

    def _cleared_gone(self, name: str, maker: Maker) -> bool:
        manifest = self._manifest(name) if name.endswith(SUFFIX + GONE) else None
        if manifest is None or not manifest.is_of(maker) or name != f".{manifest.filename}{SUFFIX}{GONE}":
            return False
        self._finish_removing(manifest.filename, name)
        return True

    def _cleared_scratch(self, name: str, maker: Maker) -> bool:
        """Remove the half of a manifest that was being changed: the folder is locked, so nobody is at it."""
        manifest = self._manifest(name[1:].removesuffix(SCRATCH) + SUFFIX) if name.endswith(SCRATCH) else None
        if manifest is None or not manifest.is_of(maker):
            return False
        os.unlink(name, dir_fd=self._descriptor)
        return True

    def _is_there(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True


def _partial_name(job_id: str, run_id: str, maker: Maker) -> str:
    return f".{job_id}-{run_id}.{maker.tag}.partial"


def _is_of(manifest: Manifest, job_id: str, maker: Maker) -> bool:
    return manifest.job_id == job_id and manifest.is_of(maker)
