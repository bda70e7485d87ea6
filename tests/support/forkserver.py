"""Starts daemons by fork from a process that has imported schedulerd already.

Four fifths of the cost of a daemon's start is the import of its modules. A fork server pays for it once, and each daemon is
still a process of its own, with its own environment, folder and descriptors. Each process that starts daemons has one fork
server, which ends with it. What Python or the loader reads before a program's first line needs a real start: see `suits`.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUEST_LIMIT = 1 << 17  # bytes: the environment is the largest part
READ_AT_START = ("PYTHON", "LD_", "LANG", "LC_", "MALLOC_", "LISTEN_", "SCHEDULERD_FAULT")  # prefixes of such variables


def suits(env: Mapping[str, str]) -> bool:
    """Return whether a process with this environment can be forked: nothing that is read at the start differs."""
    return _read_at_start(env) == STARTED_WITH


def _read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(READ_AT_START)}


STARTED_WITH = _read_at_start(os.environ)


class ForkedProcess:
    """A daemon that the fork server started: the part of subprocess.Popen that the tests use."""

    def __init__(self, args: list[str], status: int) -> None:
        self.args = args
        self.returncode: int | None = None
        self._status = status
        self._lock = threading.Lock()
        answer = os.read(status, 16)
        assert answer, "the fork server ended: tests.support.preloaded cannot be imported"
        self.pid = int(answer)

    def poll(self) -> int | None:
        """Return the exit status, a signal as a negative number, or None while it runs."""
        with self._lock:
            if self.returncode is None and select.select([self._status], [], [], 0)[0]:
                # An end without a status: the fork server itself was killed, and nobody knows.
                self.returncode = int(os.read(self._status, 16) or b"-9")
                os.close(self._status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status. Raise subprocess.TimeoutExpired after `timeout` seconds."""
        give_up = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            left = None if give_up is None else give_up - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            with contextlib.suppress(OSError, ValueError):  # another thread saw the end first and closed it
                select.select([self._status], [], [], 0.5 if left is None else min(left, 0.5))
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


class ForkServer:
    """The side of the tests: starts the fork server with the first daemon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, words: list[str], env: Mapping[str, str], cwd: Path, stdout: int, stderr: int) -> ForkedProcess:
        """Start `schedulerd` with these arguments."""
        request = json.dumps({"words": words, "env": dict(env), "cwd": str(cwd)}).encode()
        reader, writer = os.pipe()
        with self._lock:
            socket.send_fds(self._connected(), [request], [stdout, stderr, writer])
        os.close(writer)
        return ForkedProcess(words, reader)

    def _connected(self) -> socket.socket:
        if self._socket is None or self._process is None or self._process.poll() is not None:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REQUEST_LIMIT)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.support.preloaded", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], cwd=ROOT,
                )  # fmt: skip
        return self._socket

    def close(self) -> None:
        """End the fork server; daemons that still run are not touched."""
        with self._lock:
            if self._socket is not None and self._process is not None:
                self._socket.close()
                self._process.wait()
                self._socket = self._process = None


FORK_SERVER = ForkServer()
atexit.register(FORK_SERVER.close)
