"""Read files of an operator or a child process without blocking and up to a limit, and write our own atomically."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import datetime

from .trust import why_replaceable, why_untrusted

LOCK = ".lock"  # in a folder that cannot be locked itself
PARENT_MODE = 0o755  # of a folder that is created above the requested one: its users must be able to reach it
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def read_regular(
    path: str, limit: int, flags: int = 0, folder: int | None = None, users: Collection[int] | None = None
) -> bytes:
    """Return a file's content, `path` being taken from an open `folder` when there is one.

    Raise OSError, or ValueError for what is no regular file, larger than `limit` bytes, or not trusted: nobody but `users`
    may be able to change it, when they are given.
    """
    descriptor = os.open(path, _FLAGS | flags, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        if users is not None and (why := why_untrusted(path, users, descriptor)):
            raise ValueError(why)
        with open(descriptor, "rb", closefd=False) as file:  # of a folder it would be left open
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit // 1024} KiB")
    return data


def read_text(path: str, limit: int, users: Collection[int] | None = None) -> str:
    """Return a file's text, as `read_regular` does. Raise FileNotFoundError, or ValueError with the reason in words."""
    try:
        return read_regular(path, limit, users=users).decode()
    except FileNotFoundError:
        raise
    except UnicodeError:
        raise ValueError("it is not UTF-8") from None
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


def lock_folder(name: str, folder: int | None, how: int) -> int:
    """Return a descriptor that locks a folder, `name` being taken from an open one, until it is closed (flock(2)).

    Raise OSError: BlockingIOError when it is locked already, and `how` does not wait.

    NFS makes byte-range locks of flock(2), which want a file that is open for writing: there it is one in the folder.
    """
    descriptor = os.open(name, FOLDER_FLAGS, dir_fd=folder)
    try:
        try:
            fcntl.flock(descriptor, how)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            of_folder = descriptor
            descriptor = os.open(os.path.join(name, LOCK), flags, 0o600, dir_fd=folder)
            os.close(of_folder)
            fcntl.flock(descriptor, how)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def make_private(path: str) -> None:
    """Make a folder, and those above it that are not there, for the daemon's user alone. Raise OSError."""
    try:
        os.mkdir(path, 0o700)
    except FileNotFoundError:
        make_private(os.path.dirname(path))
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def make_folders(path: str, mode: int, users: Collection[int]) -> str | None:
    """Make a folder, and those above it that are not there; return why not, when others could lead us elsewhere.

    No link is followed below what was there. Raise OSError with the whole path.
    """
    missing: list[str] = []
    here = os.path.abspath(path)
    while not os.path.lexists(here):
        here, name = os.path.split(here)
        missing.insert(0, name)
    if not missing:
        return None
    if why := why_replaceable(os.path.join(here, missing[0]), users):
        return why
    descriptor = os.open(here, FOLDER_FLAGS & ~os.O_NOFOLLOW)
    try:
        for name in missing:
            here = os.path.join(here, name)
            below = _made(name, mode if here == os.path.abspath(path) else PARENT_MODE, descriptor)
            os.close(descriptor)
            descriptor = below
    except OSError as error:
        error.filename = here
        raise
    finally:
        os.close(descriptor)
    return None


def _made(name: str, mode: int, folder: int) -> int:
    """Return a descriptor of a folder in an open one, which is made when it is not there."""
    with suppress(FileExistsError):  # somebody was quicker: who opens it looks whose it is
        os.mkdir(name, mode, dir_fd=folder)
    return os.open(name, FOLDER_FLAGS, dir_fd=folder)


def fsync_folder(path: str) -> None:
    """Make the names in a folder durable. Raise OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_private(path: str, text: str) -> None:
    """Write a file that is 0600 from its first moment, whole or not at all. Raise OSError."""
    fresh = path + ".new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, path)
    except OSError:
        with suppress(OSError):
            os.unlink(fresh)  # on a full disk it would take the room of what matters
        raise


def free_name(path: str, word: str, now: datetime, companions: Iterable[str] = ("",)) -> str:
    """Return a name beside `path` that nothing has, nor what belongs to it (`companions`: the ends of their names)."""
    aside = f"{path}.{word}-{now:%Y%m%dT%H%M%S}"
    while any(os.path.lexists(aside + companion) for companion in companions):
        aside += "-2"
    return aside
