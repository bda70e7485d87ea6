"""HTTP as it is on the wire, for what no client would send."""

import socket
from contextlib import suppress


def heard(connection: socket.socket) -> bytes:
    """Return all that is said until the connection ends."""
    said = b""
    with suppress(ConnectionError):
        while piece := connection.recv(65536):
            said += piece
    return said
