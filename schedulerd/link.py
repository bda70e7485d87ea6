"""The connection to one keeper: finds the one that is there, or starts it.

A keeper gets the daemon's environment without what systemd gave the daemon alone; its children get none of that.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import sys
import threading
from contextlib import suppress
from typing import Any

from . import __version__
from .errors import StartError

log = logging.getLogger(__name__)

CONNECT_TRIES = 5
BEGIN_SECONDS = 10.0  # a keeper's start on a busy machine
READY = 3  # the descriptor on which a keeper says that it is there
CHUNK = 256 * 1024
NOT_FOR_KEEPERS = ("NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_", "CREDENTIALS_DIRECTORY", "PYTHON")


class Link:
    """One keeper; `runs` are those given to it of which no end was heard, with the orders that are not confirmed yet."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.lock = threading.Lock()  # to send, and while it is connected anew
        self.runs: dict[str, bytes | None] = {}
        self.endings: dict[str, bytes] = {}  # orders to end such runs: a keeper that is killed may not have obeyed
        self.socket: socket.socket | None = None
        self._pid: int | None = None  # when it is our child
        self._unread = b""
        os.makedirs(folder, 0o700, exist_ok=True)

    def connect(self) -> dict[str, Any]:
        """Connect to the keeper that is there, or start one; return its greeting. Raise StartError. The lock is held."""
        for _ in range(CONNECT_TRIES):
            connection = self._reach() or self._begin()
            if connection is None:
                continue
            self.socket, self._unread = connection, b""
            greeting = self._greeting()
            if greeting is None:
                connection.close()
                self.reap()
                continue
            if greeting["hello"] != __version__:
                text = "the keeper of %s is of version %s, and stays until a restart at which it has no runs"
                log.info(text, self.folder, greeting["hello"])
            return greeting
        self.socket = None
        raise StartError(f"the keeper, which starts all processes, could not be started: see {self.folder}/errors")

    def _reach(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(os.path.join(self.folder, "socket"))
        except OSError:
            connection.close()
            return None
        return connection

    def _begin(self) -> socket.socket | None:
        """Start a keeper, and wait until it says that it is there."""
        told, tell = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = self._spawn(tell)
        except OSError as error:
            log.error("no keeper could be started: %s", error.strerror)
            os.close(told)
            return None
        finally:
            os.close(tell)
        with os.fdopen(told, "rb") as file:
            is_heard = select.select([file], [], [], BEGIN_SECONDS)[0]
            is_there = bool(is_heard) and bool(file.read(1))
        if not is_there:
            self.reap()
        return self._reach()

    def _spawn(self, tell: int) -> int:
        """Start a keeper in a session of its own: no signal for our terminal or group is for it."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(NOT_FOR_KEEPERS)}
        env["PYTHONPATH"] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        errors = os.path.join(self.folder, "errors")
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-S", "-P", "-m", "schedulerd.keeper", self.folder, str(READY)],
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, 0, 1),
                (os.POSIX_SPAWN_OPEN, 2, errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, tell, READY),
            ],
            setsid=True,
            setsigmask=(),
        )

    def reap(self, seconds: float = BEGIN_SECONDS) -> None:
        """Wait for the end of the keeper, if we started it and it is about to end; not for ever."""
        if self._pid is None:
            return
        descriptor = os.pidfd_open(self._pid)
        try:
            if select.select([descriptor], [], [], seconds)[0]:
                os.waitpid(self._pid, 0)
                self._pid = None
        finally:
            os.close(descriptor)

    def _greeting(self) -> dict[str, Any] | None:
        """Return the first line that a keeper says, and leave what follows it to be heard by whoever waits for that."""
        assert self.socket is not None  # noqa: S101 - it was just connected
        self.socket.settimeout(BEGIN_SECONDS)
        line = b""
        try:
            while not line.endswith(b"\n"):
                ahead = self.socket.recv(CHUNK, socket.MSG_PEEK)
                if not ahead:
                    return None  # it was about to end
                line += self.socket.recv(ahead.find(b"\n") + 1 or len(ahead))
        except OSError as error:
            log.error("the keeper of %s does not answer: %s", self.folder, error)
            return None
        finally:
            self.socket.settimeout(None)
        greeting: dict[str, Any] = json.loads(line)
        return greeting

    def receive(self) -> list[dict[str, Any]] | None:
        """Return the reports that have come; None when the keeper is gone."""
        assert self.socket is not None  # noqa: S101 - only a connected link is read
        try:
            data = self.socket.recv(CHUNK)
        except ConnectionError:
            data = b""
        if not data:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def send(self, order: bytes) -> bool:
        """Give an order, and return whether the connection took it. The lock is held."""
        if self.socket is None:
            return False
        try:
            self.socket.sendall(order)
        except OSError:  # whoever waits for its reports hears that the keeper is gone, and sees to it
            return False
        return True

    def close(self) -> None:
        """Leave the keeper alone; it ends when it has no children."""
        with self.lock:
            if self.socket is not None:
                with suppress(OSError):  # it may be gone
                    self.socket.shutdown(socket.SHUT_RDWR)
                self.socket.close()
                self.socket = None
            if not self.runs:
                self.reap()
