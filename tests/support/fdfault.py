"""Calls that make a descriptor or a process fail as at a limit: `fdfault.c` comes before libc (LD_PRELOAD)."""

import enum
import errno
import mmap
import struct
from pathlib import Path

from tests.support.shims import shim

SHAPE = struct.Struct("qqqqq")


class Kind(enum.IntFlag):
    """Which calls count."""

    OPEN = 1
    PIPE = 2
    SOCKET = 4
    ACCEPT = 8
    EVENT = 16  # epoll_create, eventfd
    PIDFD = 32
    MEMFD = 64
    INOTIFY = 128
    DUP = 256
    FOLDER = 512  # opendir
    PROCESS = 1024  # fork, posix_spawn
    ADD = 2048  # inotify_add_watch, epoll_ctl


DESCRIPTORS = ~(Kind.PROCESS | Kind.ADD)
EVERYTHING = ~Kind(0)


class Faults:
    """The faults of the processes that are started with `env`."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(SHAPE.size))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), SHAPE.size)
        self.env = {"LD_PRELOAD": str(shim("fdfault")), "FDFAULT": str(path)}

    def fail(self, at: int = 1, kinds: Kind = DESCRIPTORS, error: int = errno.EMFILE, lasts: bool = False) -> None:
        """Let the `at`-th call from now on fail, and, when it `lasts`, all after it; 0 only counts."""
        self._shared[:] = SHAPE.pack(at, lasts, error, 0, 0)
        self._shared[:] = SHAPE.pack(at, lasts, error, 0, int(kinds) & 0xFFFF)

    def calls(self) -> int:
        """Return how many calls were counted since `fail`."""
        calls: int = SHAPE.unpack(self._shared[:])[3]
        return calls

    def stop(self) -> int:
        """Let nothing fail any more; return how many calls were counted."""
        calls = self.calls()
        self._shared[:] = bytes(SHAPE.size)
        return calls
