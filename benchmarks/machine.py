"""The conditions of the measurements: this machine, its libraries, and the file system."""

from __future__ import annotations

import contextlib
import os
import platform
import sqlite3
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from figures import say

LIBRARIES = ("aiohttp", "PyYAML", "schedule", "psutil")


def print_machine(folder: Path) -> None:
    """Print the conditions of the measurements."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = []
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    processor = models[0] if models else platform.machine()
    load = os.getloadavg()[0]
    say(f"machine: {os.cpu_count()} cores ({processor}), Linux {platform.release()}, load {load:.2f}")
    say(f"with: Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {', '.join(versions)}")
    say(f"state on: {file_system_of(folder)}, where a new file costs {file_cost(folder) * 1e6:.0f} µs")


def file_cost(folder: Path, count: int = 500) -> float:
    """Return the seconds that the creation of a file takes. Each run needs one for its output.

    On ext4 without a journal, this depends on the number of files that were deleted in the last minutes, also by earlier
    runs of the benchmark. Then, `--dir` on another file system gives more stable figures.
    """
    there = folder / "files"
    there.mkdir()
    start = time.perf_counter()
    for number in range(count):
        os.close(os.open(there / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return (time.perf_counter() - start) / count


def file_system_of(folder: Path) -> str:
    """Return the type of the file system of a folder."""
    found = ("", "?")
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _device, mount, kind, *_ = line.split()
        if (str(folder) + "/").startswith(mount.rstrip("/") + "/") and len(mount) >= len(found[0]):
            found = (mount, kind)
    return found[1]
