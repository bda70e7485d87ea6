"""Keep the output of runs bounded: when a file is over its limit, a hole is punched into its middle (fallocate(2)).

The child goes on writing into the same file, so nothing is copied and no pipe can fill up; head and tail stay, offsets stay
what they are, and the hole tells how much was dropped. inotify(7) says which files grow, so silent runs cost nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

BLOCK = 4096
MOST_AT_ONCE = 65536  # bytes read from the queue
_MODIFIED, _OVERFLOW = 0x2, 0x4000
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_EVENT = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)


class _Capped:
    __slots__ = ("dropped_to", "has_trouble", "limit", "path", "run_id")

    def __init__(self, run_id: str, path: str, limit: int) -> None:
        self.run_id, self.path, self.limit = run_id, path, limit
        self.dropped_to = 0  # the end of the hole
        self.has_trouble = False


class Capping:
    """The files that are watched; `descriptor` is readable when some have grown.

    What goes wrong with a file is returned as a text for the operator, once for each file, and costs the others nothing.
    """

    def __init__(self) -> None:
        self.descriptor = _libc.inotify_init1(_FLAGS)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._by_watch: dict[int, _Capped] = {}
        self._by_run: dict[str, int] = {}

    def watch(self, run_id: str, path: str, limit: int) -> list[str]:
        """Keep the file at `path` below about `limit` bytes on the disk, half of it head and half of it tail."""
        number = _libc.inotify_add_watch(self.descriptor, os.fsencode(path), _MODIFIED)
        if number < 0:
            return [f"run {run_id}: its output is not capped: {os.strerror(ctypes.get_errno())}"]
        self._by_watch[number] = _Capped(run_id, path, limit)
        self._by_run[run_id] = number
        return _cap(self._by_watch[number])

    def forget(self, run_id: str) -> list[str]:
        """Look at a file for the last time, and watch it no more."""
        number = self._by_run.pop(run_id, None)
        if number is None:
            return []
        _libc.inotify_rm_watch(self.descriptor, number)
        return _cap(self._by_watch.pop(number))

    def look(self) -> list[str]:
        """Cap every file that has grown since the last look."""
        try:
            data = os.read(self.descriptor, MOST_AT_ONCE)
        except BlockingIOError:
            return []
        grown, place = set(), 0
        while place < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, place)
            grown |= set(self._by_watch) if mask & _OVERFLOW else {number}
            place += _EVENT.size + length
        return [text for number in grown if number in self._by_watch for text in _cap(self._by_watch[number])]


def _cap(one: _Capped) -> list[str]:
    try:
        _punch(one)
    except FileNotFoundError:
        return []
    except OSError as error:
        text = f"run {one.run_id}: its output of more than {one.limit} bytes could not be cut: {error.strerror}"
        is_new, one.has_trouble = not one.has_trouble, True
        return [text] if is_new else []
    return []


def _punch(one: _Capped) -> None:
    """Punch out what is between head and tail, once that is an eighth of the limit. Raise OSError."""
    size = os.stat(one.path).st_size
    head = max(BLOCK, one.limit // 2 // BLOCK * BLOCK)
    start, end = max(head, one.dropped_to), (size - one.limit // 2) // BLOCK * BLOCK
    if size <= one.limit or end - start < max(BLOCK, one.limit // 8):
        return
    descriptor = os.open(one.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _libc.fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, start, end - start) == 0:
            one.dropped_to = end
            return
        number = ctypes.get_errno()
        if number in (errno.EOPNOTSUPP, errno.ENOSYS):
            os.ftruncate(descriptor, head)  # the tail cannot be kept, but the disk can
            raise OSError(number, "its file system makes no holes, so all behind the head is dropped")
        raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
