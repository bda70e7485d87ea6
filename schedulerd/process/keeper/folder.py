"""The folder of a keeper: its lock and its socket. Both are created again when they were removed."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress

from ...host.unix_sockets import drain, hold, holder_of, socket_identity
from .procfs import process

BACKLOG = 4
_LOCK = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class KeeperFolder:
    """The folder at `path`. The abstract socket `address` shows that a keeper holds it even when its files were removed."""

    def __init__(self, path: str, address: str | None) -> None:
        self.path = path
        self._address = address
        self._lock = -1
        self._name: socket.socket | None = None
        self._socket_as: tuple[int, int, int] | None = None

    def lock(self) -> bool:
        """Lock the folder; return False when another keeper holds it. Raise OSError."""
        try:
            self._lock = self._locked()
        except BlockingIOError:
            return False
        if self._address is not None:
            with suppress(OSError):  # without it, the lock file has to suffice
                self._name = hold(self._address)
                return self._name is not None or not self._is_held(self._address)
        return True

    def _locked(self) -> int:
        descriptor = os.open(os.path.join(self.path, "lock"), _LOCK, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited: a stuck child cannot hold it
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _is_held(self, address: str) -> bool:
        """Return whether a living keeper holds the address, and not a child of a dead one that is stuck before exec."""
        pid = holder_of(address, {0, os.geteuid()})
        return bool(pid) and process(pid) is not None

    def listen(self) -> socket.socket:
        """Return a listening socket under a temporary name. Raise OSError."""
        for name in ("socket", "socket.new"):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self.path, name))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(self.path, _FOLDER)
        try:  # The folder has mode 0700. Its path may be too long for a socket address; this one is not.
            listener.bind(f"/proc/self/fd/{folder}/socket.new")
            os.chmod("socket.new", 0o600, dir_fd=folder)  # whatever our umask is
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        finally:
            os.close(folder)
        listener.setblocking(False)
        return listener

    def publish(self) -> None:
        """Give the socket its final name. Raise OSError."""
        path = os.path.join(self.path, "socket")
        os.rename(f"{path}.new", path)
        self._socket_as = socket_identity(path)

    def restore(self) -> socket.socket | None:
        """Create removed files again; return the socket to listen on when it is a new one. Raise OSError."""
        if self._name is not None:
            drain(self._name)
        os.makedirs(self.path, 0o700, exist_ok=True)
        if not self._has_lock():
            before, self._lock = self._lock, self._locked()
            os.close(before)
        if socket_identity(os.path.join(self.path, "socket")) == self._socket_as:
            return None
        listener = self.listen()
        self.publish()
        return listener

    def _has_lock(self) -> bool:
        try:
            return os.path.samestat(os.stat(os.path.join(self.path, "lock")), os.fstat(self._lock))
        except FileNotFoundError:
            return False

    def leave(self) -> None:
        """Remove the socket if it is still ours; otherwise the next keeper removes it."""
        path = os.path.join(self.path, "socket")
        with suppress(OSError):
            if socket_identity(path) == self._socket_as:
                os.unlink(path)
