"""Bound the output of runs: when a file exceeds its limit, a hole is punched into its middle (fallocate(2)).

The child continues to write to the same file, so nothing is copied and no pipe can fill up. Head, tail and offsets stay as
they are, and the hole shows how much was dropped. inotify(7) reports which files grow, so silent runs cost nothing. Files
beyond the limits of inotify (fs.inotify) are polled.

A child can also erase its output: `> /dev/stderr` opens the file with O_TRUNC. This is detected when the file was longer at
an earlier check.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import struct

from ...host.descriptors import SHORTAGES

BLOCK = 4096
POLL_SECONDS = 1.0  # between two checks of files that are not watched
MOST_AT_ONCE = 65536  # bytes read from the queue
_MODIFIED, _WRITER_LEFT, _OVERFLOW, _IGNORED = 0x2, 0x8, 0x4000, 0x8000
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # the owner may hold a lease, for which open(2) would wait
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_EVENT = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)


class _Capped:
    __slots__ = ("dropped_to", "has_ended", "has_trouble", "is_erased", "is_removed", "limit", "path", "run_id", "size")

    def __init__(self, run_id: str, path: str, limit: int | None) -> None:
        self.run_id, self.path, self.limit = run_id, path, limit
        self.size = 0  # at the last check
        self.dropped_to = 0  # the end of the hole
        self.is_erased = False  # it was longer at an earlier check
        self.is_removed = False  # it did not exist at the last check
        self.has_trouble = False
        self.has_ended = False  # its run has; a leftover may still write


class OutputCap:
    """The files that are watched; `descriptor` is readable when some have grown.

    An error of a file is returned as a text for the operator, once for each file, and does not affect the other files.
    """

    def __init__(self) -> None:
        self.descriptor = _libc.inotify_init1(_FLAGS)  # -1 at fs.inotify.max_user_instances: all files are polled
        self._by_watch: dict[int, _Capped] = {}
        self._by_run: dict[str, int] = {}
        self._polled: dict[str, _Capped] = {}

    @property
    def is_polling(self) -> bool:
        """Whether there are files that are not watched: `poll` must be called regularly."""
        return bool(self._polled)

    def watch(self, run_id: str, path: str, limit: int | None) -> list[str]:
        """Keep the file at `path` below about `limit` bytes (None: no limit), half of them head and half tail."""
        number = _libc.inotify_add_watch(self.descriptor, os.fsencode(path), _MODIFIED)
        if number < 0 and (self.descriptor < 0 or ctypes.get_errno() in SHORTAGES):
            one = self._polled[run_id] = _Capped(run_id, path, limit)
            return _check(one)
        if number < 0:
            return [f"run {run_id}: its output is not watched: {os.strerror(ctypes.get_errno())}"]
        self._by_watch[number] = _Capped(run_id, path, limit)
        self._by_run[run_id] = number
        return _check(self._by_watch[number])

    def end(self, run_id: str, keeps_leftovers: bool) -> tuple[list[str], list[str]]:
        """Check the file of a run that has ended. Return what happened to it (`erased`, `removed`), and errors.

        It is not watched any more, unless leftovers that are kept have it open for writing.
        """
        if run_id in self._polled:
            return self._end_polled(self._polled[run_id], keeps_leftovers)
        number = self._by_run.pop(run_id, None)
        if number is None:
            return [], []
        one = self._by_watch[number]
        troubles = _check(one)
        one.has_ended = True
        if keeps_leftovers and one.limit:  # watch first, then check: a writer that leaves in between is not missed
            _libc.inotify_add_watch(self.descriptor, os.fsencode(one.path), _MODIFIED | _WRITER_LEFT)
        if not (keeps_leftovers and one.limit and _is_written(one.path)):
            self._unwatch(number)
        return _fates(one), troubles

    def _end_polled(self, one: _Capped, keeps_leftovers: bool) -> tuple[list[str], list[str]]:
        troubles = _check(one)
        one.has_ended = True
        if not (keeps_leftovers and one.limit and _is_written(one.path)):
            del self._polled[one.run_id]
        return _fates(one), troubles

    def poll(self) -> list[str]:
        """Cap every file that is not watched."""
        troubles = []
        for one in list(self._polled.values()):
            troubles += _check(one)
            if one.has_ended and not _is_written(one.path):
                del self._polled[one.run_id]
        return troubles

    def check(self) -> list[str]:
        """Cap every file that is watched and has grown since the last check."""
        try:
            data = os.read(self.descriptor, MOST_AT_ONCE)
        except BlockingIOError:
            return []
        events: dict[int, int] = {}  # by watch, all of its events
        place = 0
        while place < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, place)
            for each in self._by_watch if mask & _OVERFLOW else (number,):
                events[each] = events.get(each, 0) | mask
            place += _EVENT.size + length
        return [text for number, mask in events.items() if number in self._by_watch for text in self._on_event(number, mask)]

    def _on_event(self, number: int, mask: int) -> list[str]:
        one = self._by_watch[number]
        troubles = _check(one)
        is_gone = bool(mask & _IGNORED)  # the file was deleted, and the watch with it
        if one.has_ended and (is_gone or (mask & (_WRITER_LEFT | _OVERFLOW) and not _is_written(one.path))):
            self._unwatch(number)
        return troubles

    def _unwatch(self, number: int) -> None:
        _libc.inotify_rm_watch(self.descriptor, number)
        del self._by_watch[number]


def _fates(one: _Capped) -> list[str]:
    return ["erased"] * one.is_erased + ["removed"] * one.is_removed


def _check(one: _Capped) -> list[str]:
    try:
        size = os.stat(one.path, follow_symlinks=False).st_size
        if size < one.size:
            one.is_erased, one.dropped_to = True, 0
        one.size, one.is_removed = size, False
        if one.limit:
            _punch(one, one.limit)
    except FileNotFoundError:
        one.is_removed = True
    except OSError as error:
        text = f"run {one.run_id}: cannot cut its output to {one.limit} bytes: {error.strerror}"
        is_new, one.has_trouble = not one.has_trouble, True
        return [text] if is_new else []
    return []


def _punch(one: _Capped, limit: int) -> None:
    """Punch out the bytes between head and tail, once they are an eighth of the limit. Raise OSError."""
    head = max(BLOCK, limit // 2 // BLOCK * BLOCK)
    end = (one.size - limit // 2) // BLOCK * BLOCK
    if one.size <= limit or end - max(head, one.dropped_to) < max(BLOCK, limit // 8):
        return
    descriptor = os.open(one.path, os.O_WRONLY | _OPEN)
    try:  # from the head on: an erased file may have data where the hole was
        if _libc.fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, head, end - head) == 0:
            one.dropped_to = end
            return
        number = ctypes.get_errno()
        if number in (errno.EOPNOTSUPP, errno.ENOSYS):
            os.ftruncate(descriptor, head)  # the tail is lost, but the disk is protected
            one.size = head
            raise OSError(number, "its filesystem cannot punch holes, so everything after the head is dropped")
        raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def _is_written(path: str) -> bool:
    """Return whether a process has a file open for writing: exactly then a read lease is refused (fcntl(2))."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _OPEN)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # the signal when the lease is broken; it is ignored
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:  # or the filesystem has no leases: then it is watched until it is deleted
        return True
    finally:
        os.close(descriptor)
    return False
