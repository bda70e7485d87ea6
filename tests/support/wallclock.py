"""A daemon whose wall clock the test sets while it runs: CLOCK_REALTIME is shifted in front of libc, as `date -s` would."""

import mmap
import struct
from datetime import UTC, datetime
from pathlib import Path

from tests.support.shims import shim


class WallClock:
    """The wall clock of a process that is started with `env`."""

    def __init__(self, folder: Path, at: datetime) -> None:
        self._path = folder / "wallshift"
        self._path.write_bytes(struct.pack("q", 0))
        with self._path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)
        self.env = {"LD_PRELOAD": str(shim("wallshift")), "WALLSHIFT": str(self._path)}
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
