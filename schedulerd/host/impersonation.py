"""Use files with the rights of another user, in one thread: the owner of a folder cannot misdirect root.

The file system user id belongs to a thread (setfsuid(2)): signals, limits and other threads are not affected. The
capabilities that override file permissions are dropped with it. The supplementary groups of root stay; there are few or
none.
"""

from __future__ import annotations

import ctypes
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager

NOGROUP = 65534  # the group of a user without an account
_QUERY = 2**32 - 1  # an invalid id: changes nothing, and returns the current one
_libc = ctypes.CDLL(None)


@contextmanager
def file_access_as(uid: int) -> Iterator[None]:
    """Use files with the rights of a user, in this thread. Raise PermissionError when that is not permitted."""
    try:
        gid = pwd.getpwuid(uid).pw_gid
    except KeyError:
        gid = NOGROUP
    before = _set("uid", _QUERY), _set("gid", _QUERY)
    try:
        _set("gid", gid)
        _set("uid", uid)
        if (_set("uid", _QUERY), _set("gid", _QUERY)) != (uid, gid):  # setfsuid(2) reports no errors
            raise PermissionError(1, f"cannot use files as uid {uid}: CAP_SETUID and CAP_SETGID are required")
        yield
    finally:
        _set("uid", before[0])
        _set("gid", before[1])


def can_use_all_files() -> bool:
    """Return whether this process can use the files of all users."""
    return os.geteuid() == 0


def _set(which: str, number: int) -> int:
    """Set the user or group for file access, and return the previous one."""
    call = getattr(_libc, f"setfs{which}")
    return int(call(ctypes.c_uint32(number))) & _QUERY
