"""The file of the keeper's journal: its room is reserved beforehand, and it is replaced as a whole, or not at all.

There are two files: the journal, and a spare one beside it (`.new`) with room of its own. A new content is written into the
spare, and the two exchange their names (renameat2(2)), so that it costs no room even on a full disk. Where the filesystem
cannot do that, the spare takes the name of the journal, and another spare is made. Behind the content are zeros.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from contextlib import suppress

from ...host.files import fsync_folder

ROOM = 512 * 1024  # bytes that are reserved for each of the two files, and more at a time
SMALLEST = 64 * 1024  # of the disk that has less, as much as is needed is taken
FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_HERE = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE
_CANNOT_EXCHANGE = (errno.ENOENT, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # no journal yet, or not here

_libc = ctypes.CDLL(None, use_errno=True)


class ReservedFile:
    """The file at `path`; nothing is opened before `replace` or `go_on`, and every call may be tried again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._new = f"{path}.new"
        self._file = self._spare = -1
        self._used_of_spare = 0  # bytes that are no zeros
        self.is_name_durable = True
        self.end = 0  # where the next write goes
        self.room = 0  # bytes that are reserved
        self.is_sound = False  # what was written is there, as far as is known

    def go_on(self, content: bytes) -> None:
        """Write on behind the `content` that was read: it cannot be replaced. Raise OSError."""
        file = os.open(self._path, FLAGS, 0o600)
        try:
            end, size = content.rfind(b"\n") + 1, os.fstat(file).st_size
            _clear(file, end, size)  # a line that was cut short, if any
        except OSError:
            os.close(file)
            raise
        self._file, self.end, self.room, self.is_sound = file, end, size, True

    def append(self, data: bytes) -> int:
        """Hand as much of `data` to the kernel as it takes, and return how much that is. Raise OSError for nothing."""
        written = os.pwrite(self._file, data, self.end)
        self.end += written
        return written

    def append_whole(self, data: bytes) -> None:
        """Hand all of `data` to the kernel, or nothing. Raise OSError."""
        begin = self.end
        try:
            while len(data) > self.end - begin:
                self.append(data[self.end - begin :])
        except OSError:
            end, self.end = self.end, begin
            try:
                _clear(self._file, begin, end)
            except OSError:
                self.is_sound = False  # half of it is there
            raise

    def reserve(self, size: int) -> None:
        """Have room for `size` bytes in all. Raise OSError."""
        self.room = _reserve(self._file, size, -(-size // ROOM) * ROOM)

    def sync(self) -> None:
        """Return when everything is on the disk, under its name. Raise OSError."""
        try:
            os.fdatasync(self._file)
        except OSError:
            self.is_sound = False  # the kernel may have dropped what it could not write, and say so only once
            raise
        self._sync_name()

    def replace(self, data: bytes, room: int) -> None:
        """Let `data`, with room for `room` bytes in all, take the place of what is there. Raise OSError: that stays."""
        self._sync_name()  # else the name may be that of the spare, should the host go down
        if self._spare < 0:
            self._open_spare()
        _clear(self._spare, 0, self._used_of_spare)
        size = _reserve(self._spare, room, max(room, ROOM))
        self._used_of_spare = len(data)
        _write(self._spare, data, 0)
        os.fsync(self._spare)
        self._take_name()
        self.end, self.room, self.is_sound = len(data), size, True
        with suppress(OSError):  # it is tried again with the next
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
        """Give the spare the journal's name; from then on it is what is written to, whatever else goes wrong."""
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
        if found.st_nlink > 1:  # it has another name, under which it is kept
            os.close(spare)
            os.unlink(self._new)
            spare = os.open(self._new, FLAGS | os.O_EXCL, 0o600)
            found = os.fstat(spare)
        self._spare, self._used_of_spare = spare, found.st_size


def content_of(path: str) -> bytes:
    """Return what is in a journal, zeros and all. Raise OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _reserve(file: int, least: int, wanted: int) -> int:
    """Reserve as much of what is `wanted` as there is, and return how much. Raise OSError when it is not the `least`."""
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
    """Exchange the names of two files. False when that cannot be done with these. Raise OSError."""
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
