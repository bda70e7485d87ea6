"""A connection over TLS to a server whose certificate is checked, name and all, lent to a program as a Unix socket.

`redis-cli` takes a certificate for whatever name, as long as somebody whom it trusts has signed it (it never calls
SSL_set1_host(3)): who has one for another host could read along. So TLS is ours here, and the program speaks plainly.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .source import BackupError
from .urls import RedisTls

CONNECT_SECONDS = 30
PIECE_BYTES = 256 * 1024


def context_of(tls: RedisTls) -> ssl.SSLContext:
    """Return what is asked of a server's certificate, and what is shown to it. Raise BackupError for a useless file."""
    for path in filter(None, (tls.ca_certs, tls.ca_path, tls.certfile, tls.keyfile)):
        if not os.access(path, os.R_OK):
            raise BackupError(f"{path}, which the URL names, {'cannot be read' if os.path.exists(path) else 'is not there'}")
    try:
        context = ssl.create_default_context(cafile=tls.ca_certs, capath=tls.ca_path)
        if tls.certfile is not None:
            context.load_cert_chain(tls.certfile, tls.keyfile, tls.key_password or "")  # never asks at a terminal
    except OSError as error:
        why = getattr(error, "reason", None) or error
        raise BackupError(f"the certificates that the URL names cannot be used: {why}") from None
    context.check_hostname = tls.checks_host
    if not tls.is_verified:
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def tunnel(host: str, port: int, tls: RedisTls) -> Iterator[str]:
    """Lend the path of a socket that leads to a server, for one conversation. Raise BackupError.

    When it is TLS that breaks the conversation off, that is what is told, and not how the program took it.
    """
    context = context_of(tls)
    with tempfile.TemporaryDirectory(prefix="schedulerd-") as folder:  # the path of a socket has at most 107 bytes
        path = os.path.join(folder, "s")
        with _connected(host, port, context) as there, socket.socket(socket.AF_UNIX) as door:
            door.bind(path)
            door.listen()
            relay = _Relay(door, there)
            relay.start()
            try:
                yield path
            except BackupError:
                if relay.error is None:
                    raise
                raise BackupError(f"{host}:{port}: {_told(relay.error)}") from None
            finally:
                relay.end()


def _connected(host: str, port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    try:
        with socket.create_connection((host, port), CONNECT_SECONDS) as line:
            return context.wrap_socket(line, server_hostname=host)
    except (OSError, ValueError) as error:
        raise BackupError(f"{host}:{port}: {_told(error)}") from None


def _told(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate was not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    return str(getattr(error, "strerror", None) or error)


class _Relay(threading.Thread):
    """Passes on what comes, both ways, between the first who knocks at `door` and `there`.

    It is a thread, because the main one waits for the program, and is unwound by SIGTERM. `error` is what broke TLS off.
    """

    def __init__(self, door: socket.socket, there: ssl.SSLSocket) -> None:
        super().__init__(name="tunnel", daemon=True)
        self.error: OSError | None = None
        self._door = door
        self._there = there

    def run(self) -> None:
        """Pass on until one of them has ended."""
        with suppress(OSError), self._door.accept()[0] as here:  # the program's own troubles are told by it
            self._door.close()  # whom TLS broke off may knock again, and would wait for ever
            is_open = True
            while is_open:
                ready, _, _ = select.select([here, self._there], [], [])
                is_open = self._there not in ready or self._pass_back(here)
                is_open = is_open and (here not in ready or self._pass_on(here))

    def end(self) -> None:
        """Break off whatever is waited for, and return when the thread has ended."""
        for each in (self._door, self._there):
            with suppress(OSError):  # not by SSLSocket.shutdown, which takes TLS away from under the thread
                socket.socket.shutdown(each, socket.SHUT_RDWR)
        self.join()

    def _pass_on(self, here: socket.socket) -> bool:
        """Send a piece. Return whether more may come."""
        piece = here.recv(PIECE_BYTES)
        self._there.settimeout(None)
        try:
            self._there.sendall(piece)
        except OSError as error:
            self.error = error
            return False
        return bool(piece)

    def _pass_back(self, here: socket.socket) -> bool:
        """Hand on all that is there: what TLS holds already makes its socket no more ready. Return whether more may come."""
        self._there.settimeout(0)
        while piece := self._received():
            here.sendall(piece)
        return piece is None

    def _received(self) -> bytes | None:
        """Return what has come: nothing at the end, None while there is no more (half a record, or one of TLS's own)."""
        try:
            return self._there.recv(PIECE_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as error:
            self.error = error  # before `here` is closed: that ends the program, and then this is asked for
            return b""
