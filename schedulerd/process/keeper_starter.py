"""Connect to the keeper of a folder, or start one. A keeper that does not answer is killed and replaced.

A keeper inherits the variables of the daemon that it needs and no secret (`host/hardening.py`); its children inherit none.
Every wait is bounded, but many take seconds: use this during the start of the daemon, and in threads that may wait.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from typing import Any

from .. import ROOT, __version__
from ..core.errors import StartError
from ..host.descriptors import format_os_error, is_readable, limit_at_start, raise_shortage
from ..host.hardening import keeper_environment
from ..host.locks import address_of
from ..host.unix_sockets import holder_of

log = logging.getLogger(__name__)

TRIES = 5
BEGIN_SECONDS = 10.0  # for a keeper's start, or its greeting, on a busy machine
POLL_SECONDS = 0.1
DIE_SECONDS = 5.0  # after SIGKILL: a process that lives then is stuck in the kernel
MOST_ERRORS_BYTES = 64 * 1024  # of the file in which keepers write their errors
EXIT_SECONDS = 3.0  # for the exit of a keeper that has no work
FILES = ("lock", "socket")  # the next daemon finds the keeper by them
READY = 3  # the descriptor on which a keeper reports that its socket exists
CHUNK = 256 * 1024
_LOCK = struct.Struct("hhqqi")  # struct flock of fcntl(2): type, whence, start, length, process id


class _SilentError(Exception):
    """A process holds the folder and does not answer."""


class KeeperStarter:
    """Connects to the keeper of one folder; used by one thread at a time."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._pid: int | None = None  # when it is a child of ours
        os.makedirs(folder, 0o700, exist_ok=True)
        place = os.path.dirname(folder)  # in the state directory, whose name stays when its content is removed
        self._address = address_of(os.path.dirname(place), f"{os.path.basename(place)}/{os.path.basename(folder)}")

    def connect(self) -> tuple[socket.socket, dict[str, Any]]:
        """Return a connection to the keeper of the folder and its greeting; start one if none runs. Raise StartError."""
        try:
            found = self._connect_or_start()
        except OSError as error:  # a shortage hides whether one runs: it is not taken for dead
            raise StartError(f"the keeper of {self._folder} cannot be reached: {format_os_error(error)}") from error
        if found is None:
            raise StartError(
                f"the keeper of {self._folder}, which starts processes, cannot be started: see {self._folder}/errors"
            )
        return found

    def _connect_or_start(self) -> tuple[socket.socket, dict[str, Any]] | None:
        is_silent = False
        for _ in range(TRIES):
            connection = None
            try:
                connection = (None if is_silent else self._reach()) or self._start()
                greeting = _greeting(connection) if connection is not None else None
            except _SilentError:
                log.error("the keeper of %s does not answer: it is killed", self._folder)
                self.kill()
                is_silent, greeting = True, None
            if connection is not None and greeting is not None:
                return connection, self._checked(greeting)
            if connection is not None:
                connection.close()
            self.reap(BEGIN_SECONDS)
        return None

    def _checked(self, greeting: dict[str, Any]) -> dict[str, Any]:
        if greeting["hello"] != __version__:
            text = "the keeper of %s is of version %s; it is replaced at a restart of the daemon at which it has no runs"
            log.info(text, self._folder, greeting["hello"])
        return greeting

    def _reach(self) -> socket.socket | None:
        """Return a connection to the running keeper, if any. Raise _SilentError when it accepts none, or OSError."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = -1
        try:
            folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            connection.settimeout(BEGIN_SECONDS)
            connection.connect(f"/proc/self/fd/{folder}/socket")  # a socket path is limited to 107 bytes
        except OSError as error:
            connection.close()
            if isinstance(error, (BlockingIOError, TimeoutError)):
                raise _SilentError from error
            raise_shortage(error)
            return None
        finally:
            if folder >= 0:
                os.close(folder)
        return connection

    def _start(self) -> socket.socket | None:
        """Start a keeper and wait until it is ready. Raise _SilentError when it is not within BEGIN_SECONDS."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                self._pid = self._spawn(write_end)
            finally:
                os.close(write_end)
            has_reported = is_readable(read_end, BEGIN_SECONDS)
            is_ready = has_reported and bool(os.read(read_end, 1))
        except OSError as error:
            log.error("cannot start a keeper: %s", format_os_error(error))
            return None
        finally:
            os.close(read_end)
        if is_ready:
            return self._reach()
        if not has_reported:
            raise _SilentError
        self.reap(BEGIN_SECONDS)
        return self._await_other()

    def _await_other(self) -> socket.socket | None:
        """Return a connection to the holder of the folder, once it listens; None when it ends. Raise _SilentError."""
        for number in range(int(BEGIN_SECONDS / POLL_SECONDS)):
            holder = self._open_holder()
            if holder is None:
                return None
            try:
                if (connection := self._reach()) is not None:
                    return connection
                if number == 1:  # its socket may have been removed: SIGHUP makes it create it again
                    signal.pidfd_send_signal(holder, signal.SIGHUP)
                is_readable(holder, POLL_SECONDS)
            finally:
                os.close(holder)
        raise _SilentError

    def _spawn(self, ready: int) -> int:
        """Start a keeper in a session of its own, so that signals to our terminal or process group do not reach it."""
        env = {**keeper_environment(os.environ), "PYTHONPATH": ROOT}
        errors = os.path.join(self._folder, "errors")
        _bound(errors)
        return os.posix_spawn(
            sys.executable,
            [
                sys.executable,
                "-S",
                "-P",
                "-m",
                "schedulerd.process.keeper",
                self._folder,
                str(READY),
                self._address[1:],
                str(limit_at_start()),
            ],
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, 0, 1),
                (os.POSIX_SPAWN_OPEN, 2, errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, ready, READY),
            ],
            setsid=True,
            setsigmask=(),
        )

    def missing_files(self) -> list[str]:
        """Return which of the files that a keeper creates at its start do not exist."""
        return [name for name in FILES if not os.path.lexists(os.path.join(self._folder, name))]

    # The end of a keeper

    def kill(self) -> None:
        """Kill the keeper that holds the folder, and wait for its end. Raise StartError when it does not end.

        Children between fork and exec are killed first: they would continue and run what is reported as lost. The keeper is
        stopped before that, so that it does not note the end of such a child as the end of a run.
        """
        pid, holder = self._holder(), self._open_holder()
        if holder is not None:
            try:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(holder, signal.SIGSTOP)
                for child in _before_exec(pid):
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(holder, signal.SIGKILL)
                if not is_readable(holder, DIE_SECONDS):
                    raise StartError(f"the keeper of {self._folder} (process {pid}) was killed and is stuck in the kernel")
            finally:
                os.close(holder)
        if self._pid is not None:  # it may not hold the lock yet
            os.kill(self._pid, signal.SIGKILL)
        self.reap(DIE_SECONDS)

    def _open_holder(self) -> int | None:
        """Return a descriptor of the process that holds the folder's lock (pidfd_open(2)), or None. Raise OSError."""
        pid = self._holder()
        if not pid:
            return None
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        is_dead = is_readable(descriptor, 0)  # a stuck child of it may still hold its address
        if self._holder() == pid and not is_dead:  # the process id was not reused meanwhile
            return descriptor
        os.close(descriptor)
        return None

    def _holder(self) -> int:
        """Return the process id of the keeper that holds the folder; 0 for none. Raise OSError."""
        return self._locker() or holder_of(self._address, {0, os.geteuid()})

    def _locker(self) -> int:
        """Return the process id of the keeper that has locked the folder's file; 0 for none. Raise OSError."""
        try:
            lock = os.open(os.path.join(self._folder, "lock"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise_shortage(error)
            return 0
        try:
            found = fcntl.fcntl(lock, fcntl.F_GETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except OSError:
            return 0
        finally:
            os.close(lock)
        kind, _, _, _, pid = _LOCK.unpack(found)
        return pid if kind != fcntl.F_UNLCK and pid > 0 else 0

    def reap(self, seconds: float = EXIT_SECONDS) -> None:
        """Reap the keeper if it is a child of ours; wait at most `seconds` for its end."""
        if self._pid is None:
            return
        descriptor = None
        with suppress(OSError):  # a shortage: do not wait
            descriptor = os.pidfd_open(self._pid)
        try:
            if descriptor is not None:
                is_readable(descriptor, seconds)
            if os.waitpid(self._pid, os.WNOHANG)[0]:
                self._pid = None
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _greeting(connection: socket.socket) -> dict[str, Any] | None:
    """Return the greeting of a keeper, and leave the reports that follow it unread; None when the keeper is ending.

    Raise _SilentError when it sends none within BEGIN_SECONDS.
    """
    connection.settimeout(BEGIN_SECONDS)
    line = b""
    try:
        while not line.endswith(b"\n"):
            ahead = connection.recv(CHUNK, socket.MSG_PEEK)
            if not ahead:
                return None
            line += connection.recv(ahead.find(b"\n") + 1 or len(ahead))
    except TimeoutError as error:
        raise _SilentError from error
    except OSError:
        return None
    greeting: dict[str, Any] = json.loads(line)
    return greeting


def _bound(path: str) -> None:
    """Rotate the file of errors when it is too large."""
    with suppress(OSError):  # it does not exist, or the disk is full: then it grows on
        if os.stat(path).st_size > MOST_ERRORS_BYTES:
            os.replace(path, f"{path}.old")


def _before_exec(keeper: int) -> list[int]:
    """Return the children of a keeper that are between fork and exec."""
    own = _command_line(keeper)
    children = _read(f"/proc/{keeper}/task/{keeper}/children").split()
    return [int(pid) for pid in children if own and _command_line(int(pid)) == own]


def _command_line(pid: int) -> bytes:
    return _read(f"/proc/{pid}/cmdline")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:  # the process has ended, or this kernel lists no children
        raise_shortage(error)
        return b""
