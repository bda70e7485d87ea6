"""Unix sockets (unix(7)): abstract addresses as locks, and whether a path still has the socket that was made there.

Nobody can remove an abstract address, and the kernel frees it when its holder dies.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress

BACKLOG = 128


def hold(address: str) -> socket.socket | None:
    """Hold an abstract address until the socket is closed; None when another process holds it. Raise OSError."""
    holding = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        holding.bind(address)
        holding.listen(BACKLOG)  # who connects only asks who holds it, and is never answered
    except OSError as error:
        holding.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return holding


def drain(holding: socket.socket) -> None:
    """Let those go who have asked who holds an address, so that others can ask."""
    holding.setblocking(False)
    with suppress(OSError):
        while True:
            holding.accept()[0].close()


def holder_of(address: str, trusted: set[int]) -> int:
    """Return the process id of who holds an abstract address; 0 for nobody, and for a user who is not `trusted`.

    Anybody may take such an address, so a stranger's counts for nothing.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        with suppress(OSError):
            asking.connect(address)
            pid, uid, _gid = peer_of(asking)
            return pid if uid in trusted else 0
    return 0


def peer_of(connection: socket.socket) -> tuple[int, int, int]:
    """Return the process, user and group at the other end of a Unix socket (SO_PEERCRED). Raise OSError."""
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid, gid


def socket_identity(path: str) -> tuple[int, int, int] | None:
    """Return what tells a socket at a path from a later one: its inode may have the number of the earlier one."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
