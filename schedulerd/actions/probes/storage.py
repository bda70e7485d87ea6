"""Probe of folders: checks the free space, and that data can be written, synchronized (fsync(2)), read and deleted."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

from . import HEALTHY, UNHEALTHY, WORST_FIRST, Answer, Cut, graded

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def grouped(answers: Mapping[str, Answer]) -> Answer:
    """Return one answer for several folders, with the worst status and the highest latency of them. Pure."""
    paths = {folder: {key: value for key, value in one.items() if key != "latency_ms"} for folder, one in answers.items()}
    latencies = [one["latency_ms"] for one in answers.values()]
    found = {one["status"] for one in paths.values()}
    errors = [f"{folder}: {one['error']}" for folder, one in paths.items() if "error" in one]
    status = next((each for each in WORST_FIRST if each in found), HEALTHY)
    latency = None if None in latencies else max(latencies)
    return {"status": status, "paths": paths, **({"error": "; ".join(errors)} if errors else {}), "latency_ms": latency}


def probe_one(folder: str, limits: Mapping[str, Any], run_id: str, cut: Cut) -> Answer:
    """Return the answer for one of several folders. `grouped` puts the folder's name before its error."""
    try:
        return probe(folder, limits, run_id, cut)
    except OSError as error:
        return {"status": UNHEALTHY, "error": error.strerror or str(error)}


def probe(folder: str, limits: Mapping[str, Any], run_id: str, _cut: Cut) -> Answer:
    """Return the free space of a folder's file system. Raise OSError when data cannot be written to it."""
    space = os.statvfs(folder)
    is_read_only = bool(space.f_flag & os.ST_RDONLY)
    answer = {
        "free_bytes": space.f_bavail * space.f_frsize, "total_bytes": space.f_blocks * space.f_frsize,
        "free_inodes": space.f_favail, "read_only": is_read_only,
    }  # fmt: skip
    if is_read_only:
        return {"status": UNHEALTHY, "error": "it is mounted read-only", **answer}
    _write_and_read(folder, f".schedulerd-probe-{run_id}")
    least = limits.get("min_free_percent") or 0
    return graded(
        answer,
        _little("space", space.f_bavail, space.f_blocks, least),
        _little("inodes", space.f_favail, space.f_files, least),
    )


def _little(what: str, free: int, total: int, least: float) -> str | None:
    if not total or 100 * free / total >= least:
        return None
    return f"little free {what}: {100 * free / total:.1f} %, less than {least:g} %"


def _write_and_read(folder: str, name: str) -> None:
    """Write a file to the folder and read it again. Raise OSError.

    The file has no name where the file system supports O_TMPFILE (open(2)), so that the owner of the folder cannot replace
    it.
    """
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            descriptor = os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=place)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
            descriptor = os.open(name, _NEW, 0o600, dir_fd=place)
            os.unlink(name, dir_fd=place)
    finally:
        os.close(place)
    try:
        os.write(descriptor, b"schedulerd")
        os.fsync(descriptor)
        if os.pread(descriptor, 16, 0) != b"schedulerd":
            raise OSError(0, "what was written could not be read again")
    finally:
        os.close(descriptor)
