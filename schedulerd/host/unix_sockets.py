"""Unix sockets (unix(7)): abstract addresses as locks, and the identity of a socket at a path.

An abstract address cannot be removed, and the kernel frees it when its holder ends.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress

BACKLOG = 128


def hold(address: str) -> socket.socket | None:
    """Bind an abstract address until the socket is closed; return None when another process holds it. Raise OSError."""
    holding = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        holding.bind(address)
        holding.listen(BACKLOG)  # a client connects only to learn who holds it, and gets no answer
    except OSError as error:
        holding.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return holding


def drain(holding: socket.socket) -> None:
    """Close the connections of clients that asked who holds an address, so that others can connect."""
    holding.setblocking(False)
    with suppress(OSError):
        while True:
            holding.accept()[0].close()


def holder_of(address: str, trusted: set[int]) -> int:
    """Return the process id of the holder of an abstract address; 0 when there is none or its user is not `trusted`.

    Any user can bind such an address, so the holder's user must be checked.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        with suppress(OSError):
            asking.connect(address)
            pid, uid, _gid = peer_of(asking)
            return pid if uid in trusted else 0
    return 0


def peer_of(connection: socket.socket) -> tuple[int, int, int]:
    """Return the process, user and group ids of the peer of a Unix socket (SO_PEERCRED). Raise OSError."""
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid, gid


def socket_identity(path: str) -> tuple[int, int, int] | None:
    """Return what distinguishes a socket at a path from a later one, which may have the same inode number."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
