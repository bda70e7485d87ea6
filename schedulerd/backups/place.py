"""The folder of backups, opened so that it is the right one: only its maker or root could put another one in its place."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import PurePath

from ..host.accounts import chown_argument, name_of
from ..host.files import FOLDER_FLAGS, make_folders
from ..host.remedies import DROP_INS, OWN_BACKUPS
from ..host.trust import trusted, why_untrusted
from .source import BackupError


def opened(folder: str, is_made: bool, makers: Collection[int], may_be_theirs: bool = True) -> int:
    """Return a descriptor of a folder, which is made (mode 0700) when it `is_made` by who asks.

    It must be ours or root's, or that of one of the `makers`, as whom jobs make backups there; and so each folder above it.
    `may_be_theirs`: a job could make them as a user of its own. Raise BackupError with the way out.
    """
    try:
        if is_made and (why := make_folders(folder, 0o700, trusted())):
            raise BackupError(f"{folder} is not made: {why}")
        if os.path.islink(folder):
            raise BackupError(f"{folder} is a symbolic link: name the real folder")
        descriptor = os.open(folder, FOLDER_FLAGS)
        try:
            _check(folder, descriptor, makers, may_be_theirs)
        except (BackupError, OSError):
            os.close(descriptor)
            raise
    except PermissionError as error:
        at = str(error.filename or folder)
        may_not = f"read {at}" if os.path.lexists(at) else f"write in {os.path.dirname(at)}"
        raise BackupError(f"{folder}: {name_of(os.geteuid())} may not {may_not}") from error
    except OSError as error:
        raise BackupError(f"{folder}: {error.strerror}") from error
    return descriptor


def _check(folder: str, descriptor: int, makers: Collection[int], may_be_theirs: bool) -> None:
    owner = os.fstat(descriptor).st_uid
    why = why_untrusted(folder, trusted(), descriptor, os.geteuid())
    if why is not None and owner in makers:
        why = why_untrusted(folder, trusted([owner]), descriptor)
    if why is not None:
        or_else = _or_else(folder, owner, may_be_theirs and owner not in makers)
        raise BackupError(f"{folder} is not used for backups: {why}{or_else}")


def _or_else(folder: str, owner: int, may_be_theirs: bool) -> str:
    """Return what a daemon that is root can do with a folder of somebody else, besides what mends it."""
    if os.geteuid() != 0 or owner == 0:
        return ""
    if PurePath(os.path.abspath(folder)).is_relative_to(OWN_BACKUPS):  # it was made for the package's user
        return f"; see as-root.conf ({DROP_INS})"
    return (
        f"; or, if the backups are theirs, say `user: {chown_argument(owner)}` where they are made" if may_be_theirs else ""
    )
