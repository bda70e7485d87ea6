"""Compares backups with their SHA-256 checksums. Restore tools do not detect all damage."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import datetime

from .catalogue import Catalogue
from .manifest import Manifest, stamped
from .source import BackupError

BLOCK = 1024 * 1024


def verify(catalogue: Catalogue, filename: str, now: datetime, go_on: Callable[[], None] = lambda: None) -> Manifest:
    """Compare a backup with its checksum, and record the result in its manifest, which is returned.

    `go_on` is called after each block. Raise NotFoundError, or OSError when the file cannot be read: then, no result is
    recorded. Raise BackupError with the result when only the manifest cannot be written.
    """
    manifest = catalogue.get(filename).manifest
    descriptor = catalogue.open(filename)
    try:
        digest = digest_of(descriptor, go_on)
    finally:
        os.close(descriptor)
    found = stamped(now, is_good=digest == manifest.sha256)
    if digest != manifest.sha256:
        found["error"] = "the file is damaged: its SHA-256 differs from that of its manifest"
    try:
        return catalogue.change(filename, verified=found)
    except OSError as error:
        verdict = found.get("error", "the file is unchanged")
        raise BackupError(f"{filename}: {verdict}; but its manifest cannot be written: {error.strerror}") from error


def digest_of(descriptor: int, go_on: Callable[[], None] = lambda: None) -> str:
    """Return the SHA-256 of an open file in hexadecimal. Data that is appended meanwhile is not read."""
    digest, left = hashlib.sha256(), os.fstat(descriptor).st_size
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        while block := file.read(min(BLOCK, left)):
            digest.update(block)
            left -= len(block)
            go_on()
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # no process will read it soon
    return digest.hexdigest()
