"""Use files with another user's rights for a while, in one thread: whoever has the folder cannot lead root out of it.

The identity for files is a thread's own (setfsuid(2)): signals, limits and the other threads see nothing of it. With it go
the capabilities that pass over permissions. The supplementary groups stay: root's, of which there are few or none.
"""

from __future__ import annotations

import ctypes
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager

NOGROUP = 65534  # of a user whom no database knows
_ASK = 2**32 - 1  # no id: changes nothing, and the answer is the present one
_libc = ctypes.CDLL(None)


@contextmanager
def file_access_as(uid: int) -> Iterator[None]:
    """Use files as a user may, in this thread. Raise PermissionError when that cannot be."""
    try:
        gid = pwd.getpwuid(uid).pw_gid
    except KeyError:
        gid = NOGROUP
    before = _set("uid", _ASK), _set("gid", _ASK)
    try:
        _set("gid", gid)
        _set("uid", uid)
        if (_set("uid", _ASK), _set("gid", _ASK)) != (uid, gid):  # they tell no errors
            raise PermissionError(1, f"the rights of uid {uid} cannot be taken: it needs CAP_SETUID and CAP_SETGID")
        yield
    finally:
        _set("uid", before[0])
        _set("gid", before[1])


def can_use_all_files() -> bool:
    """Return whether this process may use the files of everybody."""
    return os.geteuid() == 0


def _set(which: str, number: int) -> int:
    """Set the user or the group for files, and return which it was."""
    call = getattr(_libc, f"setfs{which}")
    return int(call(ctypes.c_uint32(number))) & _ASK
