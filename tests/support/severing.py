"""A proxy before a PostgreSQL on a Unix socket that loses what it is told to lose."""

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


class SeveringProxy:
    """Hands on bytes between a client and a server; `lose_answers` cuts a connection instead of an answer to COMMIT.

    The server has got the COMMIT then and makes it; the client does not hear of it.
    """

    def __init__(self, server: Path, folder: Path) -> None:
        self.lose_answers = False
        self.freezes = False
        self.lost = 0
        self._target = str(server / ".s.PGSQL.5432")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen(64)
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self._is_closed = False
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def close(self) -> None:
        """Take no more connections, and cut those that are there."""
        self._is_closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        """Hand on, until either side hangs up or an answer is to be lost."""
        with suppress(OSError), client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._target)
            is_committing = False
            while not self._is_closed:
                ready, _, _ = select.select([client, server], [], [], 0.1)
                for end in ready:
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    if end is server and is_committing:
                        self.lost += 1
                        return
                    is_committing |= end is client and b"COMMIT\0" in data and self.lose_answers
                    if end is client:
                        server.sendall(data)
                    elif not self.freezes:
                        client.sendall(data)
