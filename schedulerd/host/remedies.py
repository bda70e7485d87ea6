"""Remedies for files that others can change: a command that corrects the file and affects nothing else on the host.

Folders of the host (/tmp, /home) or of other users (their homes) are not changed: the remedy is to use another path.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Collection

from .accounts import chown_argument

# Folders that other programs need as they are (hier(7), file-hierarchy(7)).
_OF_ROOT = "bin boot dev etc home lib lib64 media mnt opt proc root run sbin srv sys tmp usr var"
_OF_USR = "bin include lib libexec local local/bin local/lib local/sbin local/share sbin share src"
_OF_VAR = "backups cache lib local lock log mail opt run spool tmp"
_OF_THE_HOST = frozenset((
    "/", "/dev/shm", "/run/lock", "/run/user",  # noqa: S108 - only compared
    *(f"/{name}" for name in _OF_ROOT.split()),
    *(f"/usr/{name}" for name in _OF_USR.split()),
    *(f"/var/{name}" for name in _OF_VAR.split()),
))  # fmt: skip
DROP_INS = "/usr/share/doc/schedulerd/examples/systemd"  # as the package has them (contrib/systemd)
_OWN_CONFIG = "/etc/schedulerd"
OWN_BACKUPS = "/var/backups/schedulerd"
_OF_THE_PACKAGE = (_OWN_CONFIG, "/var/lib/schedulerd", OWN_BACKUPS, "/run/schedulerd")


def remedy_for(
    path: str, found: os.stat_result, users: Collection[int], owner: int, below: str | None, is_open: bool
) -> str:
    """Return the remedy for a file or folder that others can change.

    `found` is the status of `path`, `users` are those who may change it, `owner` is the intended owner. `below` is the
    wanted path when `path` is a folder above it. `is_open` is true when others than `users` can write to it.
    """
    is_theirs, is_folder = found.st_uid not in users, stat.S_ISDIR(found.st_mode)
    to = owner if owner in users else min(users)
    if below is not None and path not in _OF_THE_PACKAGE and (is_theirs or path in _OF_THE_HOST):
        return _elsewhere(below, path)
    if (
        below is None
        and is_folder
        and (found.st_mode & stat.S_ISVTX or path in _OF_THE_HOST or _is_home(path, found.st_uid))
    ):
        is_shared = found.st_mode & stat.S_ISVTX and not is_theirs  # others cannot change files that one creates there
        return _own_folder(path, to) if is_shared else "use another folder"
    commands = []
    if is_theirs:
        commands.append(f"chown {'-h ' if stat.S_ISLNK(found.st_mode) else ''}{chown_argument(to)} {shlex.quote(path)}")
    if is_open:
        commands.append(f"chmod go-w {shlex.quote(path)}")
    return " && ".join(commands)


def _own_folder(path: str, owner: int) -> str:
    whose = f"-o {chown_argument(owner)} " if owner else ""
    return f"create a separate folder below it: install -d {whose}-m 700 {shlex.quote(os.path.join(path, 'NAME'))}"


def _elsewhere(wanted: str, folder: str) -> str:
    """Return how to use a path outside a folder: for a file, the command that moves it to an unused path."""
    if not os.path.isfile(wanted):
        return f"use a path that is not below {shlex.quote(folder)}"
    target = os.path.join(_OWN_CONFIG, os.path.basename(wanted))
    while os.path.lexists(target):
        target += ".moved"
    command = f"install -o root -g {_own_group()} -m 640 {shlex.quote(wanted)} {shlex.quote(target)}"
    return f"move it and use the new path: {command}"


def _own_group() -> str:
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.getegid())


def _is_home(path: str, uid: int) -> bool:
    if path in _OF_THE_PACKAGE:
        return False
    try:
        return os.path.realpath(pwd.getpwuid(uid).pw_dir) == path
    except KeyError:
        return False
