"""Read files of operators and children without blocking and with a size limit; create folders and files safely."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import datetime

from .trust import why_replaceable, why_untrusted

LOCK = ".lock"  # the lock file in a folder that cannot be locked itself
PARENT_MODE = 0o755  # of a folder that is created above the requested one: its users must be able to reach it
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def read_regular(
    path: str, limit: int, flags: int = 0, folder: int | None = None, users: Collection[int] | None = None
) -> bytes:
    """Return a file's content; `path` is relative to an open `folder`, if given.

    Raise OSError, or ValueError for a file that is not regular, is larger than `limit` bytes, or, when `users` are given,
    can be changed by others than them.
    """
    descriptor = os.open(path, _FLAGS | flags, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        if users is not None and (why := why_untrusted(path, users, descriptor)):
            raise ValueError(why)
        with open(
            descriptor, "rb", closefd=False
        ) as file:  # closefd=False: open() of a folder fails and would leave it open
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit // 1024} KiB")
    return data


def read_text(path: str, limit: int, users: Collection[int] | None = None) -> str:
    """Return a file's text, as `read_regular` does. Raise FileNotFoundError, or ValueError with the reason."""
    try:
        return read_regular(path, limit, users=users).decode()
    except FileNotFoundError:
        raise
    except UnicodeError:
        raise ValueError("it is not UTF-8") from None
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


def lock_folder(name: str, folder: int | None, how: int) -> int:
    """Lock a folder until the returned descriptor is closed (flock(2)); `name` is relative to an open `folder`, if given.

    Raise OSError, in particular BlockingIOError when it is locked and `how` does not wait.

    NFS implements flock(2) by byte-range locks, which need a file open for writing: there, a file in the folder is locked.
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
    """Create a folder and its missing parents, accessible to the daemon's user only. Raise OSError."""
    try:
        os.mkdir(path, 0o700)
    except FileNotFoundError:
        make_private(os.path.dirname(path))
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def make_folders(path: str, mode: int, users: Collection[int]) -> str | None:
    """Create a folder and its missing parents; return why it was not created when others could redirect the path.

    No symbolic link is followed below the existing part of the path. Raise OSError with the whole path.
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
    """Create a folder in an open one if it is missing, and return its descriptor."""
    with suppress(FileExistsError):  # another process created it: the caller checks its owner
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
    """Replace a file atomically; it has mode 0600 from its creation on. Raise OSError."""
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
            os.unlink(fresh)  # frees its space on a full disk
        raise


def free_name(path: str, word: str, now: datetime, companions: Iterable[str] = ("",)) -> str:
    """Return an unused name beside `path`; `companions` are suffixes of files that belong to it and must be unused too."""
    aside = f"{path}.{word}-{now:%Y%m%dT%H%M%S}"
    while any(os.path.lexists(aside + companion) for companion in companions):
        aside += "-2"
    return aside


def remove_tree(name: str, dir_fd: int) -> None:
    """Remove the folder `name` of an open folder with its contents. Raise OSError: NotADirectoryError for another file.

    No symbolic link is followed. Folders whose mode forbids that to their owner are made writable first. Files that other
    processes add meanwhile make it fail.
    """
    here = _open_removable(name, dir_fd)
    try:
        for each in os.listdir(here):
            try:
                os.unlink(each, dir_fd=here)
            except IsADirectoryError:
                remove_tree(each, here)
    finally:
        os.close(here)
    os.rmdir(name, dir_fd=dir_fd)


def _open_removable(name: str, dir_fd: int) -> int:
    """Return a descriptor of a folder whose owner may remove its entries."""
    place = os.open(name, os.O_PATH | FOLDER_FLAGS, dir_fd=dir_fd)
    try:
        if os.fstat(place).st_mode & 0o700 != 0o700:
            with suppress(PermissionError):
                os.chmod(f"/proc/self/fd/{place}", 0o700)  # O_PATH has no fchmod(2)
        return os.open(".", FOLDER_FLAGS, dir_fd=place)
    finally:
        os.close(place)
