"""Reads `tokens.json`: the daemon's user owns it, and nobody else may read or change it."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator

from ..core.errors import UnsafeError
from ..host.accounts import chown_argument, name_of
from .tokens import LARGEST, Token, tokens_from


def kept_in(path: str) -> list[Token]:
    """Return the tokens in a file.

    Raise UnsafeError when others can read or change it, ValueError with all other mistakes, OSError when it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        _check(path, os.lstat(path), is_readable=False)
        raise
    with open(descriptor, "rb") as file:
        _check(path, os.fstat(descriptor), is_readable=True)
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 1024} KiB")
    return tokens_from(data)


def _check(path: str, found: os.stat_result, *, is_readable: bool) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise ValueError("it is a link: put the file itself there")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no file: put one there")
    is_exposed, mends = bool(found.st_mode & 0o077), list(_mends(path, found))
    is_ours = found.st_uid in (0, os.geteuid()) if is_readable else not mends
    if is_ours and not is_exposed:
        return
    known = f"its owner is {name_of(found.st_uid)} and its mode {stat.S_IMODE(found.st_mode):04o}"
    why = f"{known}; it must be {name_of(os.geteuid())}'s, and nobody else's to read: {' && '.join(mends)}"
    raise UnsafeError(why) if is_exposed else ValueError(why)


def _mends(path: str, found: os.stat_result) -> Iterator[str]:
    """Yield the commands that make a file the daemon's alone."""
    if found.st_uid != os.geteuid():  # root's, too: with mode 0600 the daemon could not read it
        yield f"chown -h {chown_argument(os.geteuid())} {shlex.quote(path)}"  # not what a link of its jobs leads to
    if found.st_mode & 0o077 or not found.st_mode & 0o400:
        yield f"chmod 600 {shlex.quote(path)}"
