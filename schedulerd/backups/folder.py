"""A folder: all of it as a tar archive, with owners by number, access lists, extended attributes and holes."""

from __future__ import annotations

import os

from . import BackupError, Copied, Kind, Order, RefutedError
from .tools import Tool, call, text_of

_FLAGS = ("--numeric-owner", "--acls", "--xattrs", "--sparse")
_CHANGED = 1  # tar's status when some files were changed while it read them


def _copy(order: Order, path: str) -> Copied:
    folder = order["folder"]
    if not os.path.isdir(folder):
        raise BackupError(f"there is no folder {folder}")
    excluded = [f"--exclude={each}" for each in (*_own(folder, order["directory"]), *order["exclude"])]
    argv = ["tar", "--create", f"--file={path}", *_FLAGS, "--anchored", *excluded, f"--directory={folder}", "."]
    status = call(Tool(argv, accepted=(0, _CHANGED)))
    warnings = ("some files changed while they were read: see the output",) if status == _CHANGED else ()
    return Copied(text_of(Tool(["tar", "--version"])).partition("\n")[0], warnings)


def _own(folder: str, backups: str) -> list[str]:
    """Return the folder of the backups as tar names it, when it is within the one that is backed up."""
    relative = os.path.relpath(os.path.realpath(backups), os.path.realpath(folder))
    return [] if relative.startswith("..") else [f"./{relative}"]


def _check(_order: Order, path: str) -> None:
    call(Tool(["tar", "--list", f"--file={path}"]))


def _restore(order: Order, path: str, scratch: str) -> None:
    """Unpack it, and look for the paths that the assertions name."""
    root = os.path.join(scratch, "restored")
    os.mkdir(root, 0o700)
    owner = () if os.geteuid() == 0 else ("--no-same-owner",)
    call(Tool(["tar", "--extract", f"--file={path}", *_FLAGS, *owner, f"--directory={root}"]))
    for wanted in order["assertions"]:
        if not os.path.lexists(os.path.join(root, os.path.normpath("/" + wanted).lstrip("/"))):
            raise RefutedError(f"there is no {wanted!r} in it")


KIND = Kind(".tar", _copy, _check, _restore)
