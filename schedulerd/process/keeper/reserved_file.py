"""A file whose disk space is reserved in advance, and which is replaced atomically: the file of the keeper's journal.

There are two files: the journal, and a spare file beside it (`.new`) with space of its own. New content is written into the
spare, and the two exchange names (renameat2(2)), which needs no space even on a full disk. On filesystems without that, the
spare is renamed to the journal, and a new spare is created. The content is followed by zeros.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from contextlib import suppress

from ...host.files import fsync_folder

ROOM = 512 * 1024  # bytes reserved for each of the two files, and the step by which they grow
SMALLEST = 64 * 1024  # with less on the disk, only what is needed is reserved
FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_HERE = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE
_CANNOT_EXCHANGE = (
    errno.ENOENT,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
)  # there is no journal yet, or the filesystem cannot

_libc = ctypes.CDLL(None, use_errno=True)


class ReservedFile:
    """The file at `path`. It is opened by `replace` or `continue_old`; every call may be retried after an error."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._new = f"{path}.new"
        self._file = self._spare = -1
        self._used_of_spare = 0  # bytes that are not zero
        self.is_name_durable = True
        self.end = 0  # where the next write goes
        self.room = 0  # bytes reserved
        self.is_sound = False  # no write is known to be lost

    def continue_old(self, content: bytes) -> None:
        """Append to the old file with the given `content`, because it cannot be replaced. Raise OSError."""
        file = os.open(self._path, FLAGS, 0o600)
        try:
            end, size = content.rfind(b"\n") + 1, os.fstat(file).st_size
            _clear(file, end, size)  # a line that was cut short
        except OSError:
            os.close(file)
            raise
        self._file, self.end, self.room, self.is_sound = file, end, size, True

    def append(self, data: bytes) -> int:
        """Write as much of `data` as the kernel accepts; return how many bytes. Raise OSError when it accepts none."""
        written = os.pwrite(self._file, data, self.end)
        self.end += written
        return written

    def append_whole(self, data: bytes) -> None:
        """Write all of `data`, or nothing. Raise OSError."""
        begin = self.end
        try:
            while len(data) > self.end - begin:
                self.append(data[self.end - begin :])
        except OSError:
            end, self.end = self.end, begin
            try:
                _clear(self._file, begin, end)
            except OSError:
                self.is_sound = False  # a part of it stays in the file
            raise

    def reserve(self, size: int) -> None:
        """Reserve `size` bytes in total. Raise OSError."""
        self.room = _reserve(self._file, size, -(-size // ROOM) * ROOM)

    def sync(self) -> None:
        """Write content and name to the disk. Raise OSError."""
        try:
            os.fdatasync(self._file)
        except OSError:
            self.is_sound = False  # the kernel may have dropped the data, and reports that only once
            raise
        self._sync_name()

    def replace(self, data: bytes, room: int) -> None:
        """Replace the content by `data`, with `room` bytes reserved in total. Raise OSError: the content stays."""
        self._sync_name()  # otherwise the journal's name may refer to the spare after a power failure
        if self._spare < 0:
            self._open_spare()
        _clear(self._spare, 0, self._used_of_spare)
        size = _reserve(self._spare, room, max(room, ROOM))
        self._used_of_spare = len(data)
        _write(self._spare, data, 0)
        os.fsync(self._spare)
        self._take_name()
        self.end, self.room, self.is_sound = len(data), size, True
        with suppress(OSError):  # retried with the next sync
            self._sync_name()
            self._trim_spare()

    def _sync_name(self) -> None:
        if not self.is_name_durable:
            fsync_folder(os.path.dirname(self._path))
            self.is_name_durable = True

    def _trim_spare(self) -> None:
        if self._spare < 0:
            self._open_spare()
        os.truncate(self._spare, min(os.fstat(self._spare).st_size, ROOM))
        self._used_of_spare = min(self._used_of_spare, ROOM)
        _reserve(self._spare, SMALLEST, ROOM)

    def _take_name(self) -> None:
        """Give the spare the name of the journal. From then on it is written, even if a later step fails."""
        before, end = self._file, self.end
        is_exchanged = _exchange(self._new, self._path)
        if not is_exchanged:
            os.rename(self._new, self._path)
        self._file, self._spare, self.is_name_durable = self._spare, -1, False
        if before < 0:
            return
        if is_exchanged and _is_at(before, self._new):
            self._spare, self._used_of_spare = before, end
        else:
            os.close(before)

    def _open_spare(self) -> None:
        spare = os.open(self._new, FLAGS, 0o600)
        found = os.fstat(spare)
        if found.st_nlink > 1:  # it is also kept under another name
            os.close(spare)
            os.unlink(self._new)
            spare = os.open(self._new, FLAGS | os.O_EXCL, 0o600)
            found = os.fstat(spare)
        self._spare, self._used_of_spare = spare, found.st_size


def content_of(path: str) -> bytes:
    """Return the content of a journal, trailing zeros included. Raise OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _reserve(file: int, least: int, wanted: int) -> int:
    """Reserve `wanted` bytes, or fewer, and return how many. Raise OSError when not even `least` are free."""
    while True:
        try:
            os.posix_fallocate(file, 0, wanted)
        except OSError:
            if wanted <= least:
                raise
            wanted = max(least, wanted // 2)
        else:
            return wanted


def _exchange(one: str, other: str) -> bool:
    """Exchange the names of two files. False when that is not possible with these. Raise OSError."""
    renameat2 = getattr(_libc, "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number))


def _is_at(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except FileNotFoundError:
        return False


def _clear(file: int, begin: int, end: int) -> None:
    if end > begin:
        _write(file, bytes(end - begin), begin)


def _write(file: int, data: bytes, place: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, place)
        view, place = view[written:], place + written
