"""The connection to one keeper. No call waits: bytes that the keeper does not accept now are kept and sent later.

It also counts how long a keeper from which a report is awaited has been silent. It counts checks, not seconds: while the
host or the daemon was suspended there were no checks, so no keeper is taken for dead because of that.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
from contextlib import suppress
from typing import Any

from ..host.unix_sockets import peer_of
from .keeper_starter import CHUNK, KeeperStarter

log = logging.getLogger(__name__)

STEADY_SECONDS = 5.0  # a connection that lasted this long resets the count of losses
FREE_LOSSES = 2  # in a row, after which the next connection is made at once; after more there is a growing delay
FIRST_WAIT = 1.0  # seconds
LONGEST_WAIT = 30.0  # seconds


class KeeperConnection:
    """One keeper. `runs` are its runs without a reported end, each with its start order until the start is confirmed."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.place = os.path.basename(folder)
        self.starter = KeeperStarter(folder)
        self.lock = threading.Lock()  # of all attributes below; no call that waits is made while it is held
        self.runs: dict[str, bytes | None] = {}
        self.end_orders: dict[str, bytes] = {}  # repeated to a successor: a keeper that was killed may not have obeyed
        self.held: set[str] = set()  # runs that were given to it while it was gone
        self.socket: socket.socket | None = None
        self.trouble: str | None = None  # why a keeper that is gone cannot be restarted
        self.shortage: str | None = None  # what a running keeper lacks, as it reported
        self.pid: int | None = None  # of a running keeper
        self.doubt: str | None = None  # why its journal may not know of all runs, see `Supervisor.doubt_of`
        self.silence = 0  # checks since its last report
        self.losses = 0  # connections in a row that were lost soon after they were made
        self.made_at = 0.0  # monotonic: when the last connection was made
        self.missing: list[str] = []  # files of its folder that were removed
        self.unsent = bytearray()
        self._unread = b""
        self._answers = False  # to pings; a keeper of an older version does not

    def use(self, connection: socket.socket, answers: bool, now: float) -> None:
        """Use a socket from now on. `answers`: this keeper answers pings. The lock is held."""
        self.made_at = now
        connection.setblocking(False)
        self.socket, self._answers, self.trouble = connection, answers, None
        self.pid, _, _ = peer_of(connection)
        self._unread, self.unsent = b"", bytearray()
        self.silence = 0
        self.held.clear()

    def count_loss(self, now: float) -> float:
        """Count a lost connection. Return the seconds to wait before the next one is made."""
        self.losses = self.losses + 1 if now < self.made_at + STEADY_SECONDS else 1
        return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (self.losses - FREE_LOSSES)) if self.losses > FREE_LOSSES else 0.0

    def restore_files(self) -> str | None:
        """Make a running keeper create its removed files again. Return which files it could not create."""
        before, self.missing = self.missing, self.starter.missing_files() if self.socket is not None else []
        if not self.missing:
            return None
        text = f"files of the keeper of {self.folder} were removed: {', '.join(self.missing)}"
        if self.missing != before:
            log.warning("%s: it is asked to create them again", text)
        with self.lock:
            if self.pid is not None:
                os.kill(self.pid, signal.SIGHUP)  # it is alive: its end of the connection is open
        return f"{text}, and could not be created again" if self.missing == before else None

    def drop(self) -> None:
        """Close the socket."""
        with self.lock:
            if self.socket is not None:
                with suppress(OSError):  # it may be gone
                    self.socket.shutdown(socket.SHUT_RDWR)
                self.socket.close()
                self.socket = self.pid = self.shortage = None
            self.unsent.clear()

    def receive(self) -> list[dict[str, Any]] | None:
        """Return the reports received; None when the keeper is gone."""
        assert self.socket is not None  # noqa: S101 - only a connected link is read
        try:
            data = self.socket.recv(CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            return None
        self.silence = 0
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [_report(line) for line in lines]

    def send(self, order: bytes) -> None:
        """Send an order to a running keeper, as soon as it accepts it. The lock is held."""
        if self.socket is None:
            return
        is_first = not self.unsent
        self.unsent += order
        if is_first:
            self.flush()

    def flush(self) -> None:
        """Send what the keeper accepts now. The lock is held."""
        if self.socket is None or not self.unsent:
            return
        with suppress(OSError):  # its buffer is full, or it is gone: then `receive` returns None
            del self.unsent[: self.socket.send(self.unsent)]

    @property
    def is_awaited(self) -> bool:
        """Whether a report of a running keeper is awaited."""
        return self.socket is not None and self._answers and bool(self.runs or self.unsent)

    def count_silence(self) -> int:
        """Return at how many checks in a row a report was awaited and none was received."""
        self.silence = self.silence + 1 if self.is_awaited else 0
        return self.silence


def _report(line: bytes) -> dict[str, Any]:
    """Return the report of a line; for one that cannot be parsed, a report of that trouble."""
    try:
        found = json.loads(line)
    except ValueError as error:
        return {"trouble": f"a report of a keeper cannot be parsed: {error}: {line[:200]!r}"}
    return found if isinstance(found, dict) else {"trouble": f"a report of a keeper is not a JSON object: {line[:200]!r}"}
