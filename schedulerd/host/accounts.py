"""User and group accounts of the host, by name or number (getpwnam(3)), and their expiry (shadow(5))."""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
import re
from datetime import UTC, date, datetime, timedelta

NEVER = -1  # days
FIRST_SIZE = 1024  # bytes of the buffer for an entry's strings; doubled when it is too small
_NO_ENTRY = (0, errno.ENOENT, errno.ESRCH)  # results of getspnam_r(3) for a user without an entry


class _Spwd(ctypes.Structure):
    """struct spwd of getspnam_r(3)."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("password", ctypes.c_char_p),
        *((field, ctypes.c_long) for field in ("changed", "min", "max", "warn", "inactive", "expire")),
        ("flag", ctypes.c_ulong),
    )  # fmt: skip


_libc = ctypes.CDLL(None)  # releases the interpreter lock during calls: an account server may be slow


def user_of(name: str) -> pwd.struct_passwd:
    """Return the user with a name or number. Raise KeyError."""
    return pwd.getpwuid(int(name)) if re.fullmatch("[0-9]{1,9}", name) else pwd.getpwnam(name)


def name_of(uid: int) -> str:
    """Return the name of a user for display, or `uid NUMBER`."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def chown_argument(uid: int) -> str:
    """Return a user as an argument of chown(1): the name, or the number when there is none."""
    return name_of(uid).removeprefix("uid ")


def group_of(name: str) -> grp.struct_group:
    """Return the group with a name or number. Raise KeyError."""
    return grp.getgrgid(int(name)) if re.fullmatch("[0-9]{1,9}", name) else grp.getgrnam(name)


def is_known(key: str, name: str) -> bool:
    """Return whether the host has the `user` or `group` (`key`) with a name or number."""
    try:
        return bool(user_of(name) if key == "user" else group_of(name))
    except KeyError:
        return False


def expired_on(user: pwd.struct_passwd, now: datetime) -> date | None:
    """Return the day on which an account expired (`chage -E`, `usermod -e`), or None.

    A locked password is not an expiry: service accounts have none. Raise OSError when the entry cannot be read.
    """
    first, today = date(1970, 1, 1), now.astimezone(UTC).date()
    days = _expiry_of(user.pw_name)
    return None if days < 0 or days > (today - first).days else first + timedelta(days=days)


def _expiry_of(name: str) -> int:
    """Return the day of expiry, in days since 1970-01-01, or NEVER."""
    entry, found, size = _Spwd(), ctypes.POINTER(_Spwd)(), FIRST_SIZE
    number = errno.ERANGE
    while number == errno.ERANGE:
        texts = ctypes.create_string_buffer(size)
        number = _libc.getspnam_r(name.encode(), ctypes.byref(entry), texts, ctypes.c_size_t(size), ctypes.byref(found))
        size *= 2
    if bool(found):  # a null pointer is false
        return int(entry.expire)
    if number not in _NO_ENTRY:
        raise OSError(number, os.strerror(number))
    return NEVER
