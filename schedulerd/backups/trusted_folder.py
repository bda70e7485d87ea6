"""Opens a folder of backups that only its owner or root can change or replace."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import PurePath

from ..host.accounts import chown_argument, name_of
from ..host.files import FOLDER_FLAGS, make_folders
from ..host.remedies import DROP_INS, OWN_BACKUPS
from ..host.trust import trusted, why_untrusted
from .source import BackupError


def open_trusted_folder(folder: str, is_created: bool, makers: Collection[int], may_be_theirs: bool = True) -> int:
    """Return a descriptor of a folder. It is created with mode 0700 when it `is_created` and does not exist.

    The folder and each folder above it must belong to root, to the own user, or to one of the `makers`, the uids as which
    jobs make backups in it. `may_be_theirs`: a job could have such a user. Raise BackupError with the remedy.
    """
    try:
        if is_created and (why := make_folders(folder, 0o700, trusted())):
            raise BackupError(f"cannot create {folder}: {why}")
        if os.path.islink(folder):
            raise BackupError(f"{folder} is a symbolic link: set `directory` to the real folder")
        descriptor = os.open(folder, FOLDER_FLAGS)
        try:
            _check(folder, descriptor, makers, may_be_theirs)
        except (BackupError, OSError):
            os.close(descriptor)
            raise
    except PermissionError as error:
        at = str(error.filename or folder)
        denied = f"read {at}" if os.path.lexists(at) else f"write in {os.path.dirname(at)}"
        raise BackupError(f"{folder}: {name_of(os.geteuid())} cannot {denied}") from error
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
        raise BackupError(f"{folder} cannot be used for backups: {why}{or_else}")


def _or_else(folder: str, owner: int, may_be_theirs: bool) -> str:
    """Return the alternatives for a folder of another user when the daemon runs as root."""
    if os.geteuid() != 0 or owner == 0:
        return ""
    if PurePath(os.path.abspath(folder)).is_relative_to(OWN_BACKUPS):  # the package created it for its own user
        return f"; see as-root.conf ({DROP_INS})"
    return (
        f"; or, if the backups belong to that user, set `user: {chown_argument(owner)}` in the job" if may_be_theirs else ""
    )
