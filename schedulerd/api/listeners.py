"""Creates the listening sockets of the API, a Unix socket and a TCP socket, or accepts those that systemd passes."""

from __future__ import annotations

import errno
import grp
import ipaddress
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..config.config import ApiSettings
from ..core.errors import AlreadyRunningError, SchedulerdError, UnsafeError
from ..host.unix_sockets import peer_of, socket_identity

log = logging.getLogger(__name__)

BACKLOG = 2048  # a connection beyond it is retried by the kernel a second later; net.core.somaxconn may be lower
LONGEST_SOCKET_PATH = 107
_WAY_OUT = "set api.socket to a path in a folder that only the daemon and root can write to"


def bind_unix(settings: ApiSettings, state_dir: str) -> socket.socket:
    """Return a listening Unix socket. Its owner and its group may connect, and every user when `api.peers` is not empty.

    The kernel identifies the user of each connection, whose role then decides. The caller holds the lock of the path.
    A stale socket is replaced.

    Raise AlreadyRunningError when a process listens on the path, UnsafeError when it is not a socket.
    """
    path = settings.socket
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        why = f"its path is longer than the {LONGEST_SOCKET_PATH} bytes of unix(7)"
        raise SchedulerdError(f"cannot create the socket {path}: {why}; set api.socket or state_dir to a shorter path")
    _remove_stale(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        server.bind(path)
    except OSError as error:
        server.close()
        raise SchedulerdError(f"cannot create the socket {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    try:
        _grant_access(settings, state_dir)
    except UnsafeError:
        server.close()
        raise
    server.listen(BACKLOG)
    return server


def _grant_access(settings: ApiSettings, state_dir: str) -> None:
    """Grant the group of the socket, and peers, access to the socket, but to no other file of the state directory.

    Raise UnsafeError when the socket was replaced, which means that another user can write to its folder.
    """
    path, folder = settings.socket, os.path.dirname(settings.socket)
    is_inside = os.path.realpath(folder) == os.path.realpath(state_dir)
    with _held(folder, folder, stat.S_ISDIR) as of_folder, _held(_in(of_folder, path), path, stat.S_ISSOCK) as its:
        try:
            group = grp.getgrnam(settings.socket_group).gr_gid
            for each, mode in ((its, 0o660), *(((of_folder, 0o710),) if is_inside else ())):
                found = os.stat(each)
                if (found.st_gid, stat.S_IMODE(found.st_mode)) != (group, mode):  # equal for one that systemd has passed
                    os.chown(each, -1, group)
                    os.chmod(each, mode)
        except KeyError:
            text = "api: no group has access to the socket %s: the group %r does not exist (create it with groupadd)"
            log.info(text, path, settings.socket_group)
        except PermissionError:
            log.warning("api: cannot give the socket %s to the group %r", path, settings.socket_group)
        if settings.peers:
            _open_to_all(path, its, of_folder)


def _open_to_all(path: str, its: str, of_folder: str) -> None:
    """Permit every user to connect. The folder becomes searchable, but its entries cannot be listed."""
    try:
        os.chmod(its, 0o666)  # noqa: S103 - the role of each user is checked
        found = os.stat(of_folder)
        if found.st_uid == os.geteuid():
            os.chmod(of_folder, stat.S_IMODE(found.st_mode) | 0o011)  # noqa: S103 - to pass, not to list
    except PermissionError:
        log.warning("api: cannot give api.peers access to the socket %s: it does not belong to the daemon's user", path)


def _in(folder: str, path: str) -> str:
    return f"{folder}/{os.path.basename(path)}"


@contextmanager
def _held(where: str, path: str, is_right: Callable[[int], bool]) -> Iterator[str]:
    """Open the file at `where`, and yield a path that refers to this file even if another process renames or links others.

    A folder may be a symbolic link, a socket may not. Raise UnsafeError, naming `path`, when `is_right` rejects the type.
    """
    try:
        descriptor = os.open(where, os.O_PATH | os.O_CLOEXEC | (os.O_NOFOLLOW if is_right is stat.S_ISSOCK else 0))
    except OSError as error:
        raise UnsafeError(f"{path} was moved while the socket was created ({error.strerror}): {_WAY_OUT}") from error
    try:
        if not is_right(os.fstat(descriptor).st_mode):
            raise UnsafeError(f"{path} was replaced while the socket was created: {_WAY_OUT}")
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _remove_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise UnsafeError(f"{path} exists and is not a socket: move it, or set api.socket to another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError as error:
            raise AlreadyRunningError(f"the socket {path} is in use: {error.strerror or error}") from error
        else:
            raise AlreadyRunningError(f"another process listens on {path}")


def bind_tcp(settings: ApiSettings) -> socket.socket | None:
    """Return a listening TCP socket, or None without `api.listen`.

    Raise UnsafeError, AlreadyRunningError or SchedulerdError.
    """
    check_listen(settings)
    if settings.host is None:
        return None
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((settings.host, settings.port))
        server.listen(BACKLOG)
    except OSError as error:
        server.close()
        kind = AlreadyRunningError if error.errno == errno.EADDRINUSE else SchedulerdError
        why = error.strerror or str(error)
        raise kind(f"cannot listen on {settings.host}:{settings.port} (api.listen): {why}") from error
    return server


def check_listen(settings: ApiSettings) -> None:
    """Raise UnsafeError when tokens would cross a network unencrypted and `api.allow_plain_remote` does not permit that."""
    if settings.host is None or _is_loopback(settings.host) or settings.allow_plain_remote:
        return
    raise UnsafeError(
        f"api.listen: {settings.host} is not a loopback address, and tokens would cross the network unencrypted: "
        "listen on 127.0.0.1 behind a proxy with TLS, or set api.allow_plain_remote: true"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Listeners:
    """The listening sockets: those that systemd has passed, and those that the daemon creates."""

    def __init__(self, settings: ApiSettings, state_dir: str, passed: list[socket.socket]) -> None:
        """Raise UnsafeError, AlreadyRunningError or SchedulerdError. The caller holds the lock of the socket's path.

        `passed` are the sockets that systemd has passed.
        """
        if any(each.family != socket.AF_UNIX or each.type != socket.SOCK_STREAM for each in passed):
            raise UnsafeError("the service manager may pass Unix stream sockets only: set api.listen for TCP")
        self.are_held = any(each.getsockname() == settings.socket for each in passed)
        self._settings, self._state_dir = settings, state_dir
        self._is_recreated = False
        if self.are_held and os.path.lexists(settings.socket):
            _grant_access(settings, state_dir)
        elif self.are_held:  # its path was removed, and only the service manager could restore it
            passed = [*passed, self._recreate()]
        elif passed:
            log.warning("api: the service manager has passed the socket %s, which is not api.socket, %s: listening on both",
                        passed[0].getsockname(), settings.socket)  # fmt: skip
        self.unix = [*passed, *([] if self.are_held else [bind_unix(settings, state_dir)])]
        self.tcp = bind_tcp(settings)
        self._identity = socket_identity(settings.socket)

    def _recreate(self) -> socket.socket:
        path = self._settings.socket
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        fresh = bind_unix(self._settings, self._state_dir)
        log.warning("api: the socket %s was removed: recreated", path)
        self._is_recreated = True
        return fresh

    def restore(self) -> socket.socket | None:
        """Return a new socket if the path of the Unix socket was removed, else None. Raise SchedulerdError or OSError."""
        path = self._settings.socket
        found = socket_identity(path)
        if found == self._identity:
            return None
        fresh = None if found is not None and _is_own(path) else self._recreate()
        self._identity = socket_identity(path)
        return fresh

    def remove(self) -> None:
        """Remove the path of the Unix socket, so that callers fail at once. One that systemd has passed remains."""
        if not self.are_held or self._is_recreated:
            with suppress(OSError):
                os.unlink(self._settings.socket)


def _is_own(path: str) -> bool:
    """Return whether this process listens on a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return False
        return peer_of(probe)[0] == os.getpid()
