"""One rule for every file that decides what runs: who may change it may run commands as the daemon, or as a job's user.

A file is trusted when it and each folder above it belong to a trusted user, and nobody else may write there. A folder with
the sticky bit (/tmp) may be written by others: they cannot touch what is not theirs (unlink(2), EACCES). A link is trusted
like a file, and so is what it leads to. The group of a file may write when it is a trusted user's own, which has no other
member (Debian's user private groups). With an ACL (acl(5)), the bits of the group are what it gives to anybody at most.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import PurePath

from .accounts import name_of
from .remedies import remedy_for


def trusted(also: Iterable[int] = ()) -> frozenset[int]:
    """Return the users who may decide what runs: root, the daemon's own user, and those in `also`."""
    return frozenset((0, os.geteuid(), *also))


def why_untrusted(path: str, users: Collection[int], descriptor: int | None = None, owner: int = 0) -> str | None:
    """Return in words who else may change what is at a path, and the way out; None when it is trusted.

    `descriptor` is the file as it was opened, `owner` whose it should be. Raise OSError when a folder cannot be looked at.
    """
    path = os.path.abspath(path)
    real = os.readlink(f"/proc/self/fd/{descriptor}") if descriptor is not None else os.path.realpath(path)
    places = tuple(dict.fromkeys((path, real)))
    for each in places:  # the folders first: a file in a folder of somebody else is not mended by what is done to the file
        if why := _why_above(each, users):
            return why
    if descriptor is not None and (why := _why(path, os.fstat(descriptor), users, owner)):
        return why
    # What is there now, too: a stranger may have had a link there when it was opened, and put a file there since.
    return next(filter(None, (_why(each, os.lstat(each), users, owner) for each in places)), None)


def why_replaceable(path: str, users: Collection[int]) -> str | None:
    """Return in words who else may put something at a path, and the way out; None when nobody may.

    What is there may be anybody's, or nothing. Raise OSError when a folder cannot be looked at.
    """
    for each in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
        with suppress(FileNotFoundError):  # it begins at the top: whatever is there was looked at
            if why := _why_above(each, users):
                return why
            found = os.lstat(each)
            is_shared = os.stat(os.path.dirname(each)).st_mode & stat.S_ISVTX  # who owns something may replace it
            if found.st_uid not in users and (is_shared or stat.S_ISLNK(found.st_mode)):
                return _why(each, found, users, 0)
    return None


def _why_above(path: str, users: Collection[int]) -> str | None:
    for each in map(str, reversed(PurePath(path).parents)):
        found = os.lstat(each)
        is_folder = stat.S_ISDIR(found.st_mode)
        if is_folder and found.st_mode & stat.S_ISVTX and found.st_uid in users:
            continue
        if why := _why(each, found, users, 0, below=path):
            return f"its folder {why}"
    return None


def _why(path: str, found: os.stat_result, users: Collection[int], owner: int, below: str | None = None) -> str | None:
    """Return what is wrong with a file, folder or link by itself; `owner` is whose it should be, `below` what is wanted."""
    is_link = stat.S_ISLNK(found.st_mode)  # whose mode says nothing (symlink(7))
    is_open = not is_link and _is_open(path, found, users)
    if found.st_uid in users and not is_open:
        return None
    known = f"(owner {name_of(found.st_uid)}, mode {stat.S_IMODE(found.st_mode):04o})"
    others = " and ".join(sorted(map(name_of, users), key=lambda name: (name != "root", name)))
    return f"{path} {known} can be changed by others than {others}: {remedy_for(path, found, users, owner, below, is_open)}"


def _is_open(path: str, found: os.stat_result, users: Collection[int]) -> bool:
    """Return whether others than `users` may write to a file or folder by its mode."""
    by_group = found.st_mode & stat.S_IWGRP and not _is_own_group(path, found.st_gid, users)
    return bool(found.st_mode & stat.S_IWOTH or by_group)


def _is_own_group(path: str, gid: int, users: Collection[int]) -> bool:
    """Return whether nobody but trusted users may do what a file's group may. Raise OSError."""
    return any(_is_private(gid, uid) for uid in users) and not _has_acl(path)


def _has_acl(path: str) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return False


def _is_private(gid: int, uid: int) -> bool:
    """Return whether a group is the one that its user alone is in."""
    try:
        owner, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return owner.pw_gid == gid and group.gr_name == owner.pw_name and not set(group.gr_mem) - {owner.pw_name}
