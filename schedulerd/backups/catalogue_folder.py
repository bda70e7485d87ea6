"""The folder of a catalogue: open once, locked for changes, and read through one descriptor without following links."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from shlex import quote
from threading import Event

from ..core.faults import fault_point
from ..host.accounts import chown_argument, name_of
from ..host.descriptors import SHORTAGES, format_os_error
from ..host.files import lock_folder, read_regular
from ..host.impersonation import can_use_all_files, file_access_as
from .manifest import MANIFEST_LIMIT, SUFFIX, BackupOwner, Manifest, from_json, to_json
from .source import BackupError
from .trusted_folder import open_trusted_folder

GONE = ".gone"
SCRATCH = ".new"
PATIENCE = 600.0  # seconds: the files of a killed run are removed under the lock, and may be large
POLL_SECONDS = 0.1
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class CatalogueFolder:
    """An open folder of backups.

    Any user who can read the folder can lock it. Others wait for at most `patience` seconds.
    """

    def __init__(
        self, path: str, is_created: bool, makers: Collection[int], may_be_theirs: bool, patience: float
    ) -> None:  # fmt: skip
        """Open a folder; see `open_trusted_folder`. Raise BackupError."""
        self.path = path
        self.descriptor = open_trusted_folder(path, is_created, makers, may_be_theirs)
        self.uid = os.fstat(self.descriptor).st_uid
        self._patience = patience
        self._rights = ExitStack()

    def enter(self) -> None:
        """Use the folder of another user with the rights of that user, until it is closed. Raise BackupError."""
        if self.uid and can_use_all_files():
            try:
                self._rights.enter_context(file_access_as(self.uid))
            except OSError as error:
                self.close()
                raise BackupError(f"{self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Restore the own rights, and close the folder."""
        self._rights.close()
        os.close(self.descriptor)

    # Reading

    def exists(self, name: str) -> bool:
        """Return whether the folder has an entry of a name."""
        try:
            os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def manifest_names(self) -> list[str]:
        """Return the names of the files that may be manifests."""
        return [name for name in os.listdir(self.descriptor) if name.endswith(SUFFIX) and not name.startswith(".")]

    def manifest(self, name: str) -> Manifest | None:
        """Return the manifest in a file, None for a file that contains none. Raise BackupError when it cannot be read."""
        try:
            return from_json(read_regular(name, MANIFEST_LIMIT, os.O_NOFOLLOW, self.descriptor))
        except OSError as error:
            if error.errno in SHORTAGES:  # otherwise, the backup would count as missing, and its name as free
                raise BackupError(f"{self.path}/{name} cannot be read: {format_os_error(error)}") from error
            return None
        except (ValueError, RecursionError):
            return None  # the file of another program

    def why_foreign(self, found: os.stat_result) -> str | None:
        """Return why a regular file is not a backup of the owner of the folder, or None."""
        if found.st_nlink != 1:
            return f"the file has {found.st_nlink} names (hard links)"
        return None if found.st_uid == self.uid else f"the file belongs to another user ({found.st_uid})"

    # Changing

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against other changes. Raise BackupError when another process holds the lock too long."""
        descriptor = self._lock()
        try:
            yield
        finally:
            os.close(descriptor)

    def _lock(self) -> int:
        for _ in range(max(1, int(self._patience / POLL_SECONDS))):
            try:
                return lock_folder(".", self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                Event().wait(POLL_SECONDS)
        is_open = os.fstat(self.descriptor).st_mode & 0o044
        hint = f"; any user who can read it can lock it: chmod 700 {quote(self.path)}" if is_open else ""
        waited = f"has been locked by another process for {self._patience:g} s"
        raise BackupError(f"{self.path} {waited}: `fuser -v {quote(self.path)}` lists the processes{hint}")

    def make_partial(self, name: str) -> int:
        """Create an empty private folder, and return a descriptor that keeps it locked. Raise BackupError."""
        with self.locked():  # against a cleanup before the new folder is locked
            try:
                os.mkdir(name, 0o700, dir_fd=self.descriptor)
            except PermissionError as error:
                raise BackupError(f"{name_of(os.geteuid())} cannot write in {self.path}") from error
            return lock_folder(name, self.descriptor, fcntl.LOCK_EX)

    def check_owner(self, uid: int) -> None:
        """Raise BackupError when a new file belongs to another user than the folder, which its group can write."""
        if uid != self.uid:
            command = f"chown {chown_argument(uid)} {quote(self.path)}"
            raise BackupError(f"{self.path} does not belong to {name_of(uid)}, as its backups would: {command}")

    def write_manifest(self, manifest: Manifest, scratch: str, folder: int) -> None:
        """Write a manifest as the file `scratch` of the open `folder`, then rename it to its name in this folder.

        Raise BackupError for one that is too large to be read again.
        """
        data = to_json(manifest)
        if len(data) > MANIFEST_LIMIT:
            raise BackupError(f"the manifest of {manifest.filename} has {len(data)} bytes, more than {MANIFEST_LIMIT}")
        descriptor = os.open(scratch, _NEW, 0o600, dir_fd=folder)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.rename(scratch, manifest.filename + SUFFIX, src_dir_fd=folder, dst_dir_fd=self.descriptor)

    def finish_removal(self, filename: str, gone: str) -> None:
        """Delete a backup whose manifest has been renamed to `gone`."""
        os.fsync(self.descriptor)
        fault_point("backup_removed")
        with suppress(FileNotFoundError):
            os.unlink(filename, dir_fd=self.descriptor)
        os.unlink(gone, dir_fd=self.descriptor)


def partial_name(job_id: str, run_id: str, owner: BackupOwner) -> str:
    """Return the name of the private folder in which a run makes a backup."""
    return f".{job_id}-{run_id}.{owner.tag}.partial"


def partial_pattern(owner: BackupOwner, run_id: str) -> re.Pattern[str]:
    """Return the pattern of the private folders of an owner. Its group is the run id, which matches `run_id`."""
    return re.compile(rf"\..+-({run_id})\.{owner.tag}\.partial")
