"""A folder as a source: a tar archive with numeric owners, ACLs, extended attributes and holes."""

from __future__ import annotations

import fnmatch
import os
import re
import stat

from .commands import Tool, call, text_of
from .source import BackupError, Order, RefutedError, SourceCopy, SourceType

_FLAGS = ("--numeric-owner", "--acls", "--xattrs", "--sparse")
_ALL_XATTRS = "--xattrs-include=*"  # without it, tar restores only those of the namespace `user`
BLOCK = 512  # bytes; the unit of tar and of st_blocks
MOST_LINKS = 40  # in one path; the limit of the kernel, see path_resolution(7)
_CHANGED = 1  # the status of tar when files were changed while it read them


def _copy(order: Order, path: str) -> SourceCopy:
    folder = order["folder"]
    if not os.path.isdir(folder):
        raise BackupError(f"folder {folder} does not exist")
    own = [f"--exclude={each}" for each in _own(folder, order["directory"])]
    excluded = ["--no-wildcards", *own, "--wildcards", *(f"--exclude={each}" for each in order["exclude"])]
    argv = ["tar", "--create", f"--file={path}", *_FLAGS, "--anchored", *excluded, f"--directory={folder}", "."]
    status = call(Tool(argv, accepted=(0, _CHANGED)))
    warnings = ("some files changed while tar read them: see the output",) if status == _CHANGED else ()
    return SourceCopy(text_of(Tool(["tar", "--version"])).partition("\n")[0], warnings)


def _own(folder: str, backups: str) -> list[str]:
    """Return the folder of the backups, as tar names it, when it is inside the source folder. Raise BackupError."""
    relative = os.path.relpath(os.path.realpath(backups), os.path.realpath(folder))
    if relative == os.curdir:
        raise BackupError(
            f"{folder} would be backed up into itself: set `directory` to another folder, for example below it"
        )
    return [] if relative.split(os.sep)[0] == os.pardir else [f"./{relative}"]


def _size(order: Order) -> int:
    """Return an estimate of the size of the archive. No symbolic link is followed."""
    excluded = [re.compile(fnmatch.translate(each)) for each in order["exclude"]]
    seen: set[tuple[int, int]] = set()
    folders, total = [(order["folder"], ".")], BLOCK
    while folders:
        path, name = folders.pop()
        if os.path.realpath(path) == os.path.realpath(order["directory"]):
            continue
        for entry in _entries(path):
            shown = f"{name}/{entry.name}"
            if any(each.match(shown) for each in excluded):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append((entry.path, shown))
            total += BLOCK + _content(entry, seen)
    return total


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as found:
            return list(found)
    except OSError:
        return []  # tar reports it


def _content(entry: os.DirEntry[str], seen: set[tuple[int, int]]) -> int:
    """Return the number of bytes that tar stores of a file: no holes, and a file with several names once (`seen`)."""
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return 0
    if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) in seen:
        return 0
    if status.st_nlink > 1:
        seen.add((status.st_dev, status.st_ino))
    return min(-(-status.st_size // BLOCK), status.st_blocks) * BLOCK


def _check(_order: Order, path: str) -> None:
    call(Tool(["tar", "--list", f"--file={path}"]))


def _restore(order: Order, path: str, scratch: str) -> None:
    """Unpack the archive, and check that the paths of the assertions exist."""
    root = os.path.join(scratch, "restored")
    os.mkdir(root, 0o700)
    owner = () if os.geteuid() == 0 else ("--no-same-owner",)
    call(Tool(["tar", "--extract", f"--file={path}", *_FLAGS, _ALL_XATTRS, *owner, f"--directory={root}"]))
    for wanted in order["assertions"]:
        if not _has(root, wanted):
            raise RefutedError(f"the backup does not contain {wanted!r}")


def _has(root: str, wanted: str) -> bool:
    """Return whether a path exists in a folder. Links inside it are followed. Raise BackupError for one that leads out.

    A path outside the folder exists on this host regardless of the backup, so it proves nothing. The last component may
    be any link.
    """
    left = os.path.normpath("/" + wanted).split("/")
    found: list[str] = []
    links = 0
    while left:
        name = left.pop(0)
        path = os.path.join(root, *found, name)
        if name == "..":
            if not found:
                raise _leads_out(wanted)
            found.pop()
        elif not os.path.lexists(path):
            return False
        elif left and os.path.islink(path):
            links += 1
            target = os.readlink(path)
            if os.path.isabs(target) or links > MOST_LINKS:
                raise _leads_out(wanted)
            left = [*target.split("/"), *left]
        elif name not in ("", "."):
            found.append(name)
    return True


def _leads_out(wanted: str) -> BackupError:
    return BackupError(
        f"the assertion {wanted!r} contains a link that leads out of the folder: use the path of the file itself"
    )


SOURCE_TYPE = SourceType(".tar", _copy, _check, _size, _restore, restored_copies=2)
