"""Where the output of runs is kept: one file a run, in a folder a day, which the child itself writes.

A file's place follows from the run_id alone (it begins with the time), so nothing else has to be remembered.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache

from .model import EPOCH

TAIL_BYTES = 2000
MILLISECONDS_A_DAY = 86_400_000


class OutputFolder:
    """The files with the output of runs below `root`, which is made, mode 0700."""

    def __init__(self, root: str) -> None:
        self.root = root
        os.makedirs(root, 0o700, exist_ok=True)
        self._made = ""  # the day's folder that was made last

    def path_of(self, run_id: str) -> str:
        """Return where the output of a run is, whether it is there or not."""
        return f"{self.root}/{_day_of(run_id)}/{run_id}.log"

    def make(self, run_id: str) -> str:
        """Return `path_of`, after making the folder that it is in."""
        path = self.path_of(run_id)
        folder = os.path.dirname(path)
        if folder != self._made or not os.path.isdir(folder):
            os.makedirs(folder, 0o700, exist_ok=True)
            self._made = folder
        return path

    def settle(self, run_id: str) -> int:
        """Return how many bytes a finished run has written; a file without any is taken away."""
        path = self.path_of(run_id)
        try:
            size = os.stat(path).st_size
            if size == 0:
                os.unlink(path)
        except FileNotFoundError:
            return 0
        return size

    def tail(self, run_id: str, most: int = TAIL_BYTES) -> str:
        """Return the last `most` bytes of a run's output as text, whole lines where there are any."""
        try:
            with open(self.path_of(run_id), "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - most))
                data = file.read(most)
        except FileNotFoundError:
            return ""
        if size > most:
            data = data[data.find(b"\n") + 1 :]
        return data.decode("utf-8", "replace").rstrip()

    def delete(self, run_id: str) -> int:
        """Take away a run's output, and its day's folder when that was the last; return the bytes that are free now."""
        path = self.path_of(run_id)
        try:
            size = os.lstat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        if os.path.dirname(path) != self._made:
            with suppress(OSError):  # not empty yet
                os.rmdir(os.path.dirname(path))
        return size


def _day_of(run_id: str) -> str:
    return _day_name(int(run_id[:8] + run_id[9:13], 16) // MILLISECONDS_A_DAY)


@lru_cache(maxsize=8)
def _day_name(days: int) -> str:
    return (EPOCH + timedelta(days=days)).strftime("%Y-%m-%d")
