"""A TLS connection to a server whose certificate is fully verified, provided to a program as a Unix socket.

`redis-cli` accepts a trusted certificate of any host name (it never calls SSL_set1_host(3)), so that the owner of a
certificate of another host could read the data. Therefore, this module does the TLS, and the program uses a plain socket.
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
    """Return the TLS settings of a URL. Raise BackupError for a file that cannot be used."""
    for path in filter(None, (tls.ca_certs, tls.ca_path, tls.certfile, tls.keyfile)):
        if not os.access(path, os.R_OK):
            raise BackupError(f"{path}, named in the URL, {'cannot be read' if os.path.exists(path) else 'does not exist'}")
    try:
        context = ssl.create_default_context(cafile=tls.ca_certs, capath=tls.ca_path)
        if tls.certfile is not None:
            context.load_cert_chain(tls.certfile, tls.keyfile, tls.key_password or "")  # never prompts for a password
    except OSError as error:
        why = getattr(error, "reason", None) or error
        raise BackupError(f"the certificates named in the URL cannot be used: {why}") from None
    context.check_hostname = tls.checks_host
    if not tls.is_verified:
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def tunnel(host: str, port: int, tls: RedisTls) -> Iterator[str]:
    """Provide the path of a Unix socket that is connected to a server, for one connection. Raise BackupError.

    When TLS fails, the error of TLS is raised instead of that of the program.
    """
    context = context_of(tls)
    with tempfile.TemporaryDirectory(prefix="schedulerd-") as folder:  # the path of a socket must not exceed 107 bytes
        path = os.path.join(folder, "s")
        with _connected(host, port, context) as server, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            relay = _Relay(listener, server)
            relay.start()
            try:
                yield path
            except BackupError:
                if relay.error is None:
                    raise
                raise BackupError(f"{host}:{port}: {_format_error(relay.error)}") from None
            finally:
                relay.end()


def _connected(host: str, port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    try:
        with socket.create_connection((host, port), CONNECT_SECONDS) as line:
            return context.wrap_socket(line, server_hostname=host)
    except (OSError, ValueError) as error:
        raise BackupError(f"{host}:{port}: {_format_error(error)}") from None


def _format_error(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate was rejected: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    return str(getattr(error, "strerror", None) or error)


class _Relay(threading.Thread):
    """Forwards data in both directions between the first client of `listener` and `server`.

    It is a thread because the main thread waits for the program, and handles SIGTERM. `error` is the error of TLS, if any.
    """

    def __init__(self, listener: socket.socket, server: ssl.SSLSocket) -> None:
        super().__init__(name="tunnel", daemon=True)
        self.error: OSError | None = None
        self._listener = listener
        self._server = server

    def run(self) -> None:
        """Forward until one of the connections ends."""
        with suppress(OSError), self._listener.accept()[0] as client:  # the program reports errors of its own
            self._listener.close()  # a program that connects again after an error of TLS would wait forever
            is_open = True
            while is_open:
                ready, _, _ = select.select([client, self._server], [], [])
                is_open = self._server not in ready or self._pass_back(client)
                is_open = is_open and (client not in ready or self._pass_on(client))

    def end(self) -> None:
        """Shut down both connections, and wait for the thread to end."""
        for each in (self._listener, self._server):
            with suppress(OSError):  # SSLSocket.shutdown would remove TLS while the thread uses it
                socket.socket.shutdown(each, socket.SHUT_RDWR)
        self.join()

    def _pass_on(self, client: socket.socket) -> bool:
        """Forward a block to the server. Return whether the program may send more."""
        piece = client.recv(PIECE_BYTES)
        self._server.settimeout(None)
        try:
            self._server.sendall(piece)
        except OSError as error:
            self.error = error
            return False
        return bool(piece)

    def _pass_back(self, client: socket.socket) -> bool:
        """Forward all data that TLS has received: select does not see its buffer. Return whether more may follow."""
        self._server.settimeout(0)
        while piece := self._received():
            client.sendall(piece)
        return piece is None

    def _received(self) -> bytes | None:
        """Return received data: empty at the end, None when none is available yet."""
        try:
            return self._server.recv(PIECE_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as error:
            self.error = error  # set before `client` is closed, which ends the program
            return b""
