"""Abstract Unix socket addresses (unix(7)) as locks: nobody can remove one, and the kernel frees it when its holder dies."""

from __future__ import annotations

import errno
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
            size = struct.calcsize("3i")
            pid, uid, _gid = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
            return pid if uid in trusted else 0
    return 0
