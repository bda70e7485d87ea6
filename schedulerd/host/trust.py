"""Trust in files that decide what runs: whoever can change one can run commands as the daemon or as a job's user.

A file is trusted when it and all folders above it belong to trusted users and nobody else can write to them. A folder
with the sticky bit (/tmp) may be writable by others: they cannot replace files of other owners there (unlink(2), EACCES).
A symbolic link is checked like a file, and so is its target. Group write permission is accepted when the group is the
private group of a trusted user, without other members (as Debian creates them). With an ACL (acl(5)), the group bits are
the maximum that the ACL grants.
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
    """Return the users who may decide what runs: root, the daemon's user, and the users `also`."""
    return frozenset((0, os.geteuid(), *also))


def why_untrusted(path: str, users: Collection[int], descriptor: int | None = None, owner: int = 0) -> str | None:
    """Return which other users can change the file at a path, and the remedy; None when it is trusted.

    `descriptor` is the opened file, `owner` the intended owner. Raise OSError when a folder cannot be inspected.
    """
    path = os.path.abspath(path)
    real = os.readlink(f"/proc/self/fd/{descriptor}") if descriptor is not None else os.path.realpath(path)
    places = tuple(dict.fromkeys((path, real)))
    for each in places:  # folders first: correcting a file does not help in a folder of another user
        if why := _why_above(each, users):
            return why
    if descriptor is not None and (why := _why(path, os.fstat(descriptor), users, owner)):
        return why
    # Also what is there now: there may have been a link of another user when it was opened.
    return next(filter(None, (_why(each, os.lstat(each), users, owner) for each in places)), None)


def why_replaceable(path: str, users: Collection[int]) -> str | None:
    """Return which other users can create or replace a file at a path, and the remedy; None when nobody can.

    An existing file may have any owner. Raise OSError when a folder cannot be inspected.
    """
    for each in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
        with suppress(FileNotFoundError):  # checked from the top: all existing folders were inspected
            if why := _why_above(each, users):
                return why
            found = os.lstat(each)
            is_shared = os.stat(os.path.dirname(each)).st_mode & stat.S_ISVTX  # the owner can replace it there
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
    """Return why a file, folder or link itself is not trusted; `owner` is the intended owner, `below` the wanted path."""
    is_link = stat.S_ISLNK(found.st_mode)  # the mode of a link has no meaning (symlink(7))
    is_open = not is_link and _is_open(path, found, users)
    if found.st_uid in users and not is_open:
        return None
    known = f"(owner {name_of(found.st_uid)}, mode {stat.S_IMODE(found.st_mode):04o})"
    others = " and ".join(sorted(map(name_of, users), key=lambda name: (name != "root", name)))
    return f"{path} {known} can be changed by others than {others}: {remedy_for(path, found, users, owner, below, is_open)}"


def _is_open(path: str, found: os.stat_result, users: Collection[int]) -> bool:
    """Return whether the mode of a file or folder lets others than `users` write to it."""
    by_group = found.st_mode & stat.S_IWGRP and not _is_own_group(path, found.st_gid, users)
    return bool(found.st_mode & stat.S_IWOTH or by_group)


def _is_own_group(path: str, gid: int, users: Collection[int]) -> bool:
    """Return whether the group of a file is private to a trusted user and there is no ACL. Raise OSError."""
    return any(_is_private(gid, uid) for uid in users) and not _has_acl(path)


def _has_acl(path: str) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return False


def _is_private(gid: int, uid: int) -> bool:
    """Return whether a group is the private group of a user, without other members."""
    try:
        owner, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return owner.pw_gid == gid and group.gr_name == owner.pw_name and not set(group.gr_mem) - {owner.pw_name}
