"""A disk that fails when the test says so, for the processes that are started with `env`."""

import errno
import mmap
import sys
from pathlib import Path

from tests.support.shims import shim

SIZE = 4096


class IoFault:
    """Calls on files that fail, as iofault.c knows them."""

    def __init__(self, folder: Path) -> None:
        path = folder / "iofault"
        path.write_bytes(bytes(SIZE))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), SIZE)
        self.env = {"LD_PRELOAD": str(shim("iofault")), "IOFAULT": str(path)}

    def fail(self, calls: str, *paths: str, number: int = errno.EIO) -> None:
        """From now on, let `calls` (open, read, write, sync, folder, rename, allocate; commas between) fail, and no others.

        They fail with an error on the files whose path contains one of `paths`.
        """
        self.heal()
        rules = "".join(f"{calls} {number} {path}\n" for path in paths).encode()
        self._shared[1 : 2 + len(rules)] = rules + b"\0"
        self._shared[0] = 1

    def count(self) -> int:
        """Return how many calls have failed."""
        return int.from_bytes(self._shared[SIZE - 8 :], sys.byteorder)

    def heal(self) -> None:
        """Let nothing fail any more."""
        self._shared[0] = 0
