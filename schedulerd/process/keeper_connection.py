"""The connection to one keeper, which never makes its user wait: what the keeper does not take now is kept, and sent later.

It also counts for how long a keeper of which something is awaited has been silent. It counts looks and not seconds: a host
or a daemon that stood still itself has not looked, and takes nobody for dead.
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

STEADY_SECONDS = 5.0  # a connection that lasted this long was a good one
FREE_LOSSES = 2  # in a row, of which the next connection is made at once; then longer and longer is waited
FIRST_WAIT = 1.0
LONGEST_WAIT = 30.0


class KeeperConnection:
    """One keeper; `runs` are those given to it of which no end was heard, with the orders that are not confirmed yet."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.place = os.path.basename(folder)
        self.summoner = KeeperStarter(folder)
        self.lock = threading.Lock()  # of all below; nothing is waited for while it is held
        self.runs: dict[str, bytes | None] = {}
        self.endings: dict[str, bytes] = {}  # orders to end such runs: a keeper that is killed may not have obeyed
        self.held: set[str] = set()  # runs that were given to it while there was no keeper
        self.socket: socket.socket | None = None
        self.trouble: str | None = None  # why no keeper can be had in the place of one that is gone
        self.shortage: str | None = None  # what a keeper that is there says that it lacks
        self.pid: int | None = None  # of a keeper that is there
        self.doubt: str | None = None  # why its journal may not know of all runs, see `Supervisor.doubt_of`
        self.silence = 0  # looks since its last word
        self.losses = 0  # connections in a row that were lost soon after they had been made
        self.taken_at = 0.0  # when the last one was made (monotonic)
        self.missing: list[str] = []  # files of its folder that somebody has removed
        self.unsent = bytearray()
        self._unread = b""
        self._answers = False  # one of an older version does not

    def take(self, connection: socket.socket, answers: bool, now: float) -> None:
        """Use a connection from now on. `answers`: this keeper answers a ping. The lock is held."""
        self.taken_at = now
        connection.setblocking(False)
        self.socket, self._answers, self.trouble = connection, answers, None
        self.pid, _, _ = peer_of(connection)
        self._unread, self.unsent = b"", bytearray()
        self.silence = 0
        self.held.clear()

    def lost(self, now: float) -> float:
        """Count the loss of the connection; return for how long another one is not to be made."""
        self.losses = self.losses + 1 if now < self.taken_at + STEADY_SECONDS else 1
        return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (self.losses - FREE_LOSSES)) if self.losses > FREE_LOSSES else 0.0

    def look_at_files(self) -> str | None:
        """Have a keeper that is there make again what somebody has removed of its files; return what it could not make."""
        before, self.missing = self.missing, self.summoner.missing() if self.socket is not None else []
        if not self.missing:
            return None
        text = f"files of the keeper of {self.folder} were removed: {', '.join(self.missing)}"
        if self.missing != before:
            log.warning("%s: it is told to make them again", text)
        with self.lock:
            if self.pid is not None:
                os.kill(self.pid, signal.SIGHUP)  # it lives: its end of the connection is open
        return f"{text}, and are not made again" if self.missing == before else None

    def drop(self) -> None:
        """Use the connection no more."""
        with self.lock:
            if self.socket is not None:
                with suppress(OSError):  # it may be gone
                    self.socket.shutdown(socket.SHUT_RDWR)
                self.socket.close()
                self.socket = self.pid = self.shortage = None
            self.unsent.clear()

    def receive(self) -> list[dict[str, Any]] | None:
        """Return the reports that have come; None when the keeper is gone."""
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
        """Give an order to a keeper that is there, as soon as it takes it. The lock is held."""
        if self.socket is None:
            return
        is_first = not self.unsent
        self.unsent += order
        if is_first:
            self.flush()

    def flush(self) -> None:
        """Send what the keeper takes now. The lock is held."""
        if self.socket is None or not self.unsent:
            return
        with suppress(OSError):  # it takes no more for now, or it is gone: who waits for its reports sees to that
            del self.unsent[: self.socket.send(self.unsent)]

    @property
    def is_awaited(self) -> bool:
        """Whether a keeper that is there owes us a word."""
        return self.socket is not None and self._answers and bool(self.runs or self.unsent)

    def look(self) -> int:
        """Return for how many looks in a row something was awaited and nothing heard."""
        self.silence = self.silence + 1 if self.is_awaited else 0
        return self.silence


def _report(line: bytes) -> dict[str, Any]:
    """Return a report; one that cannot be read costs those around it nothing."""
    try:
        found = json.loads(line)
    except ValueError as error:
        return {"trouble": f"a report of a keeper cannot be read: {error}: {line[:200]!r}"}
    return found if isinstance(found, dict) else {"trouble": f"a report of a keeper is no object: {line[:200]!r}"}
