"""The folder of backups, opened so that it is the right one: only its maker or root could put another one in its place."""

from __future__ import annotations

import os
from collections.abc import Collection

from ..accounts import name_of
from ..folders import FOLDER, make_folders
from ..trust import trusted, why_untrusted
from . import BackupError


def opened(folder: str, is_made: bool, makers: Collection[int]) -> int:
    """Return a descriptor of a folder, which is made (mode 0700) when it `is_made` by who asks.

    It must be ours or root's, or that of one of the `makers`, as whom jobs make backups there; and so each folder above it.
    Raise BackupError with the command that mends it.
    """
    try:
        if is_made and (why := make_folders(folder, 0o700, trusted())):
            raise BackupError(f"{folder} is not made: {why}")
        if os.path.islink(folder):
            raise BackupError(f"{folder} is a symbolic link: name the real folder")
        descriptor = os.open(folder, FOLDER)
        try:
            _check(folder, descriptor, makers)
        except (BackupError, OSError):
            os.close(descriptor)
            raise
    except OSError as error:
        raise BackupError(f"{folder}: {error.strerror}") from error
    return descriptor


def _check(folder: str, descriptor: int, makers: Collection[int]) -> None:
    owner = os.fstat(descriptor).st_uid
    why = why_untrusted(folder, trusted(), descriptor, os.geteuid())
    if why is not None and owner in makers:
        why = why_untrusted(folder, trusted([owner]), descriptor)
    if why is None:
        return
    is_theirs = os.geteuid() == 0 != owner and owner not in makers  # of somebody as whom jobs could be run
    or_else = f"; or, if the backups are theirs, say `user: {name_of(owner)}` where they are made" if is_theirs else ""
    raise BackupError(f"{folder} is not used for backups: {why}{or_else}")
