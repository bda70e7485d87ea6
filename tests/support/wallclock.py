"""A daemon whose wall clock the test sets while it runs: CLOCK_REALTIME is shifted in front of libc, as `date -s` would."""

import functools
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("wallshift.c")


@functools.lru_cache(maxsize=1)
def library() -> Path:
    """Return the compiled shim; without a compiler the test is skipped, and in CI it fails."""
    if shutil.which("gcc") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("gcc is not installed (tests/install-servers)")
    built = Path(tempfile.mkdtemp(prefix="schedulerd-wallshift-")) / "wallshift.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(built), str(SOURCE), "-ldl"], check=True)
    return built


class WallClock:
    """The wall clock of a process that is started with `env`."""

    def __init__(self, folder: Path, at: datetime) -> None:
        self._path = folder / "wallshift"
        self._path.write_bytes(struct.pack("q", 0))
        with self._path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)
        self.env = {"LD_PRELOAD": str(library()), "WALLSHIFT": str(self._path)}
        self.set(at)

    def now(self) -> datetime:
        """Return what the process sees."""
        (shift,) = struct.unpack("q", self._shared[:8])
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() + shift / 1e9, UTC)

    def set(self, at: datetime) -> None:
        """Set the clock."""
        seconds = at.timestamp() - datetime.now(UTC).timestamp()
        self._shared[:8] = struct.pack("q", int(seconds * 1e9))

    def step(self, seconds: float) -> None:
        """Set the clock forward, or back."""
        (shift,) = struct.unpack("q", self._shared[:8])
        self._shared[:8] = struct.pack("q", shift + int(seconds * 1e9))
