"""The accounts of this host: users and groups by name or number (getpwnam(3)), and when an account ends (shadow(5))."""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
import re
from datetime import UTC, date, datetime, timedelta

NEVER = -1  # days
FIRST_SIZE = 1024  # bytes for the texts of an entry; more when that is too little
_NO_ENTRY = (0, errno.ENOENT, errno.ESRCH)  # what getspnam_r(3) says of a user who has no entry


class _Spwd(ctypes.Structure):
    """struct spwd of getspnam_r(3)."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("password", ctypes.c_char_p),
        *((field, ctypes.c_long) for field in ("changed", "min", "max", "warn", "inactive", "expire")),
        ("flag", ctypes.c_ulong),
    )  # fmt: skip


_libc = ctypes.CDLL(None)  # lets other threads go on: a server of accounts may take its time


def user_of(name: str) -> pwd.struct_passwd:
    """Return a user by name or number. Raise KeyError."""
    return pwd.getpwuid(int(name)) if re.fullmatch("[0-9]{1,9}", name) else pwd.getpwnam(name)


def name_of(uid: int) -> str:
    """Return what people call a user."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def chown_argument(uid: int) -> str:
    """Return a user as chown(1) takes one: the name, or the number when there is none."""
    return name_of(uid).removeprefix("uid ")


def group_of(name: str) -> grp.struct_group:
    """Return a group by name or number. Raise KeyError."""
    return grp.getgrgid(int(name)) if re.fullmatch("[0-9]{1,9}", name) else grp.getgrnam(name)


def is_known(key: str, name: str) -> bool:
    """Return whether this host has the `user` or `group` of that name or number."""
    try:
        return bool(user_of(name) if key == "user" else group_of(name))
    except KeyError:
        return False


def expired_on(user: pwd.struct_passwd, now: datetime) -> date | None:
    """Return the day on which an account ended (`chage -E`, `usermod -e`), None for one that goes on.

    A locked password ends no account: those of services have none. Raise OSError when that cannot be looked up.
    """
    first, today = date(1970, 1, 1), now.astimezone(UTC).date()
    days = _expiry_of(user.pw_name)
    return None if days < 0 or days > (today - first).days else first + timedelta(days=days)


def _expiry_of(name: str) -> int:
    """Return the first day, counted from 1970 on, on which an account is no more; NEVER for one without such a day."""
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
