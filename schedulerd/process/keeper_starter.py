"""Finds the keeper of a folder, or starts one; one that does not answer is killed, and another one takes its place.

A keeper gets of the daemon's environment what it needs and no secret (privacy.py); its children get none of that.
Nothing here waits for ever, but much waits for seconds: it is for the daemon's start, and for threads that may wait.
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
BEGIN_SECONDS = 10.0  # a keeper's start, or its first word, on a busy machine
LOOK_SECONDS = 0.1
DIE_SECONDS = 5.0  # after SIGKILL: what lives then is stuck in the kernel
MOST_ERRORS_BYTES = 64 * 1024  # of what keepers that fail, or cannot be started, have to say
LEAVE_SECONDS = 3.0  # how long the end of a keeper that has nothing to do is waited for
FILES = ("lock", "socket")  # without them, the next daemon does not find the keeper
READY = 3  # the descriptor on which a keeper says that it is there
CHUNK = 256 * 1024
_LOCK = struct.Struct("hhqqi")  # struct flock of fcntl(2): type, whence, start, length, process id


class _SilentError(Exception):
    """Somebody holds the folder, and does not answer."""


class KeeperStarter:
    """Sees to it that a folder has a keeper; used by one thread at a time."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._pid: int | None = None  # when it is our child
        os.makedirs(folder, 0o700, exist_ok=True)
        place = os.path.dirname(folder)  # in the state directory: its name stays when all that is in it is removed
        self._address = address_of(os.path.dirname(place), f"{os.path.basename(place)}/{os.path.basename(folder)}")

    def summon(self) -> tuple[socket.socket, dict[str, Any]]:
        """Return a connection to the folder's keeper, which may be a new one, and its greeting. Raise StartError."""
        try:
            found = self._summon()
        except OSError as error:  # a shortage: who is there cannot be known, and nobody is taken for dead
            raise StartError(f"the keeper of {self._folder} cannot be reached: {format_os_error(error)}") from error
        if found is None:
            raise StartError(
                f"the keeper of {self._folder}, which starts processes, could not be started: see {self._folder}/errors"
            )
        return found

    def _summon(self) -> tuple[socket.socket, dict[str, Any]] | None:
        is_silent = False
        for _ in range(TRIES):
            connection = None
            try:
                connection = (None if is_silent else self._reach()) or self._begin()
                greeting = _greeting(connection) if connection is not None else None
            except _SilentError:
                log.error("the keeper of %s does not answer: it is killed", self._folder)
                self.kill()
                is_silent, greeting = True, None
            if connection is not None and greeting is not None:
                return connection, self._welcome(greeting)
            if connection is not None:
                connection.close()
            self.reap(BEGIN_SECONDS)
        return None

    def _welcome(self, greeting: dict[str, Any]) -> dict[str, Any]:
        if greeting["hello"] != __version__:
            text = "the keeper of %s is of version %s, and stays until a restart at which it has no runs"
            log.info(text, self._folder, greeting["hello"])
        return greeting

    def _reach(self) -> socket.socket | None:
        """Return a connection to the keeper that is there, if any. Raise _SilentError when it takes none, or OSError."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = -1
        try:
            folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            connection.settimeout(BEGIN_SECONDS)
            connection.connect(f"/proc/self/fd/{folder}/socket")  # however long the folder's own path is
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

    def _begin(self) -> socket.socket | None:
        """Start a keeper, and wait until it says that it is there. Raise _SilentError when another one is in the way."""
        told, tell = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                self._pid = self._spawn(tell)
            finally:
                os.close(tell)
            is_heard = is_readable(told, BEGIN_SECONDS)
            is_there = is_heard and bool(os.read(told, 1))
        except OSError as error:
            log.error("no keeper could be started: %s", format_os_error(error))
            return None
        finally:
            os.close(told)
        if is_there:
            return self._reach()
        if not is_heard:
            raise _SilentError
        self.reap(BEGIN_SECONDS)
        return self._await_other()

    def _await_other(self) -> socket.socket | None:
        """Return a connection to who holds the folder, once it listens; None when it ends. Raise _SilentError."""
        for number in range(int(BEGIN_SECONDS / LOOK_SECONDS)):
            holder = self._open_holder()
            if holder is None:
                return None
            try:
                if (connection := self._reach()) is not None:
                    return connection
                if number == 1:  # it may have lost its socket: this has it look, and make that again
                    signal.pidfd_send_signal(holder, signal.SIGHUP)
                is_readable(holder, LOOK_SECONDS)
            finally:
                os.close(holder)
        raise _SilentError

    def _spawn(self, tell: int) -> int:
        """Start a keeper in a session of its own: no signal for our terminal or group is for it."""
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
                (os.POSIX_SPAWN_DUP2, tell, READY),
            ],
            setsid=True,
            setsigmask=(),
        )

    def missing(self) -> list[str]:
        """Return which files are not there that a keeper makes at its start."""
        return [name for name in FILES if not os.path.lexists(os.path.join(self._folder, name))]

    # An end

    def kill(self) -> None:
        """Kill the keeper that holds the folder, and wait for its end. Raise StartError when it does not end.

        What it was just starting is killed first: it would go on, and run after all what is told to have been lost.
        Stopped before that, the keeper does not note the end of such a child as that of a run.
        """
        pid, holder = self._holder(), self._open_holder()
        if holder is not None:
            try:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(holder, signal.SIGSTOP)
                for child in _unborn(pid):
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(holder, signal.SIGKILL)
                if not is_readable(holder, DIE_SECONDS):
                    raise StartError(f"the keeper of {self._folder} (process {pid}) was killed and is stuck in the kernel")
            finally:
                os.close(holder)
        if self._pid is not None:  # it may not have come as far as the lock
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
        is_dead = is_readable(descriptor, 0)  # and a child that is stuck holds its address
        if self._holder() == pid and not is_dead:  # it was the same process all the time, and not another of its number
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

    def reap(self, seconds: float = LEAVE_SECONDS) -> None:
        """Wait for the end of the keeper, if we started it and it is about to end; not for ever."""
        if self._pid is None:
            return
        descriptor = None
        with suppress(OSError):  # a shortage: it is not waited for
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
    """Return the first line that a keeper says, and leave what follows it; None when it was about to end.

    Raise _SilentError when it says nothing.
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
    """Begin a file anew that has grown too large; what it had stays beside it until the next time."""
    with suppress(OSError):  # it is not there, or there is no room: then it grows on, by a few lines a day
        if os.stat(path).st_size > MOST_ERRORS_BYTES:
            os.replace(path, f"{path}.old")


def _unborn(keeper: int) -> list[int]:
    """Return the children of a keeper that have not become their programs yet."""
    own = _command_line(keeper)
    children = _read(f"/proc/{keeper}/task/{keeper}/children").split()
    return [int(pid) for pid in children if own and _command_line(int(pid)) == own]


def _command_line(pid: int) -> bytes:
    return _read(f"/proc/{pid}/cmdline")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:  # the process is gone, or this kernel lists no children
        raise_shortage(error)
        return b""
