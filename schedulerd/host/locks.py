"""Locks that exclude a second daemon, even after their files are removed.

A lock on a path consists of a file (flock(2)), which earlier versions check too, and an abstract Unix socket address
(unix(7)). An address cannot be removed, and the kernel frees it when its holder ends. It is derived from the folder that
contains the path and from the last component, so it does not depend on what exists at the path.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import socket
from contextlib import suppress

from ..core.errors import AlreadyRunningError, SchedulerdError
from .files import lock_folder, make_private
from .unix_sockets import drain, hold, holder_of

log = logging.getLogger(__name__)


def address_of(path: str, part: str = "") -> str:
    """Return the abstract address for a path, or for a `part` of what is there. Raise OSError."""
    parent, name = os.path.split(os.path.realpath(path))
    found = os.stat(parent)
    text = f"{found.st_dev}:{found.st_ino}:{name}:{part}"
    return f"\0schedulerd-{hashlib.sha256(os.fsencode(text)).hexdigest()[:32]}"


def trusted_holders(path: str) -> set[int]:
    """Return the users whose processes may hold the lock of a path: root, the own user, and the owner of the path."""
    users = {0, os.geteuid()}
    with suppress(OSError):
        users.add(os.stat(path).st_uid)
    return users


def lock_file(path: str, what: str) -> int:
    """Lock a file until the returned descriptor is closed. Raise AlreadyRunningError, SchedulerdError or OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise AlreadyRunningError(f"another schedulerd uses {what} (it holds {path})") from error
        except OSError as error:
            os.close(descriptor)
            raise SchedulerdError(f"cannot lock {path}: {error.strerror}") from error
        if is_same_file(path, descriptor):
            return descriptor
        os.close(descriptor)  # replaced before it was locked: another process may lock the new file


def is_same_file(path: str, descriptor: int) -> bool:
    """Return whether an open file or folder is the one at a path."""
    try:
        found, held = os.stat(path), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)


def check_name(path: str, what: str) -> None:
    """Raise AlreadyRunningError when another process holds the address of a path."""
    with suppress(OSError):  # the folder that contains the path does not exist
        _check_holder(holder_of(address_of(path), trusted_holders(path)), what)


def _check_holder(pid: int, what: str) -> None:
    if pid:
        why = f"process {pid} holds it, though its lock file was removed"
        raise AlreadyRunningError(f"another schedulerd uses {what} ({why})")


class PathLock:
    """The lock on one path. `file` is its lock file; with `is_folder`, the folder at the path is locked too."""

    def __init__(self, path: str, file: str, what: str, is_folder: bool = False) -> None:
        """Raise AlreadyRunningError when another process holds the lock, SchedulerdError or OSError when it fails."""
        self._path, self._file, self._what = path, file, what
        self._folder = -1
        self._lost: str | None = None
        self._name: socket.socket | None = None
        self._descriptor = lock_file(file, what)
        try:
            self._hold_name()
            if is_folder:
                self._folder = self._locked_folder()
        except BaseException:
            self.close()
            raise

    def _hold_name(self) -> None:
        why = "a process of another user holds the address of its lock"
        try:
            address = address_of(self._path)
            self._name = hold(address)
            if self._name is None:
                _check_holder(holder_of(address, trusted_holders(self._path)), self._what)
        except OSError as error:
            why = error.strerror or str(error)
        if self._name is None:
            log.warning("%s is protected by its lock file only: %s", self._what, why)

    def _locked_folder(self) -> int:
        try:
            return lock_folder(os.path.realpath(self._path), None, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunningError(f"another schedulerd uses {self._what} (it has locked the folder)") from error

    def restore(self) -> str | None:
        """Create again what was removed; return an error message, or None."""
        if self._name is not None:
            drain(self._name)
        try:
            self._restore_folder()
            self._restore_file()
        except (SchedulerdError, OSError) as error:
            return f"the lock on {self._what} was removed and cannot be restored: {error}"
        return self._lost

    def _restore_folder(self) -> None:
        if self._folder < 0 or is_same_file(self._path, self._folder):
            return
        self._lost = f"{self._what} was removed or replaced: its content is lost, restart the daemon"
        make_private(self._path)
        fresh = self._locked_folder()
        os.close(self._folder)
        self._folder = fresh

    def _restore_file(self) -> None:
        if is_same_file(self._file, self._descriptor):
            return
        fresh = lock_file(self._file, self._what)
        os.close(self._descriptor)
        self._descriptor = fresh
        log.warning("the lock file %s was removed: recreated", self._file)

    def close(self) -> None:
        """Release the lock."""
        if self._name is not None:
            self._name.close()
        for descriptor in (self._folder, self._descriptor):
            if descriptor >= 0:
                os.close(descriptor)
