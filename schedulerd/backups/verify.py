"""Is a backup still what it was? Its SHA-256 says so, and nothing less: restoring tools take flipped bits and cut ends."""

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
    """Read a backup, compare, and remember what was found; return its manifest. `go_on` is asked at each piece.

    Raise NotFoundError, or OSError when it cannot be read: that says nothing about the backup, and is not remembered.
    Raise BackupError with the verdict when only that cannot be remembered.
    """
    manifest = catalogue.get(filename).manifest
    descriptor = catalogue.open(filename)
    try:
        digest = digest_of(descriptor, go_on)
    finally:
        os.close(descriptor)
    found = stamped(now, is_good=digest == manifest.sha256)
    if digest != manifest.sha256:
        found["error"] = "the file is damaged: its SHA-256 is not the one with which it was made"
    try:
        return catalogue.change(filename, verified=found)
    except OSError as error:
        verdict = found.get("error", "the file is what it was")
        raise BackupError(f"{filename}: {verdict}; but its manifest cannot be written: {error.strerror}") from error


def digest_of(descriptor: int, go_on: Callable[[], None] = lambda: None) -> str:
    """Return the SHA-256 of an open file, in hex: of as many bytes as it has now, though somebody may still write in it."""
    digest, left = hashlib.sha256(), os.fstat(descriptor).st_size
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        while block := file.read(min(BLOCK, left)):
            digest.update(block)
            left -= len(block)
            go_on()
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # a backup in the page cache helps nobody
    return digest.hexdigest()
