"""Keep the output of runs bounded: when a file is over its limit, a hole is punched into its middle (fallocate(2)).

The child goes on writing into the same file, so nothing is copied and no pipe can fill up; head and tail stay, offsets stay
what they are, and the hole tells how much was dropped. inotify(7) says which files grow, so silent runs cost nothing. Where
its limits (fs.inotify) let us watch no more, files are polled.

A child can also erase its output: `> /dev/stderr` opens the file anew, and cuts it off (O_TRUNC of open(2)). That can be
seen when the file was longer at an earlier look.
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
POLL_SECONDS = 1.0  # between two looks at files that are not watched
MOST_AT_ONCE = 65536  # bytes read from the queue
_MODIFIED, _WRITER_LEFT, _OVERFLOW, _IGNORED = 0x2, 0x8, 0x4000, 0x8000
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # whose file it is may have a lease on it, which open(2) waits for
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_EVENT = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)


class _Capped:
    __slots__ = ("dropped_to", "has_ended", "has_trouble", "is_erased", "is_removed", "limit", "path", "run_id", "size")

    def __init__(self, run_id: str, path: str, limit: int | None) -> None:
        self.run_id, self.path, self.limit = run_id, path, limit
        self.size = 0  # at the last look
        self.dropped_to = 0  # the end of the hole
        self.is_erased = False  # was longer once
        self.is_removed = False  # was not there at the last look
        self.has_trouble = False
        self.has_ended = False  # its run has, and something that it left may write on


class OutputCap:
    """The files that are watched; `descriptor` is readable when some have grown.

    What goes wrong with a file is returned as a text for the operator, once for each file, and costs the others nothing.
    """

    def __init__(self) -> None:
        self.descriptor = _libc.inotify_init1(_FLAGS)  # -1 at a limit (fs.inotify.max_user_instances): all files are polled
        self._by_watch: dict[int, _Capped] = {}
        self._by_run: dict[str, int] = {}
        self._polled: dict[str, _Capped] = {}

    @property
    def is_polling(self) -> bool:
        """Whether there are files that are not watched: `poll` must be called regularly."""
        return bool(self._polled)

    def watch(self, run_id: str, path: str, limit: int | None) -> list[str]:
        """Keep the file at `path` below about `limit` bytes on the disk (None: any), half of it head and half of it tail."""
        number = _libc.inotify_add_watch(self.descriptor, os.fsencode(path), _MODIFIED)
        if number < 0 and (self.descriptor < 0 or ctypes.get_errno() in SHORTAGES):
            one = self._polled[run_id] = _Capped(run_id, path, limit)
            return _look_at(one)
        if number < 0:
            return [f"run {run_id}: its output is not watched: {os.strerror(ctypes.get_errno())}"]
        self._by_watch[number] = _Capped(run_id, path, limit)
        self._by_run[run_id] = number
        return _look_at(self._by_watch[number])

    def end(self, run_id: str, keeps_leftovers: bool) -> tuple[list[str], list[str]]:
        """Look at the file of a run that has ended; return what became of it (`erased`, `removed`), and what went wrong.

        It is watched no more, unless something that the run left, and that is to be kept, has it open for writing.
        """
        if run_id in self._polled:
            return self._end_polled(self._polled[run_id], keeps_leftovers)
        number = self._by_run.pop(run_id, None)
        if number is None:
            return [], []
        one = self._by_watch[number]
        troubles = _look_at(one)
        one.has_ended = True
        if keeps_leftovers and one.limit:  # told first, then looked: whoever leaves in between is not missed
            _libc.inotify_add_watch(self.descriptor, os.fsencode(one.path), _MODIFIED | _WRITER_LEFT)
        if not (keeps_leftovers and one.limit and _is_written(one.path)):
            self._unwatch(number)
        return _fates(one), troubles

    def _end_polled(self, one: _Capped, keeps_leftovers: bool) -> tuple[list[str], list[str]]:
        troubles = _look_at(one)
        one.has_ended = True
        if not (keeps_leftovers and one.limit and _is_written(one.path)):
            del self._polled[one.run_id]
        return _fates(one), troubles

    def poll(self) -> list[str]:
        """Cap every file that is not watched."""
        troubles = []
        for one in list(self._polled.values()):
            troubles += _look_at(one)
            if one.has_ended and not _is_written(one.path):
                del self._polled[one.run_id]
        return troubles

    def check(self) -> list[str]:
        """Cap every file that is watched and has grown since the last look."""
        try:
            data = os.read(self.descriptor, MOST_AT_ONCE)
        except BlockingIOError:
            return []
        told: dict[int, int] = {}  # by watch, all that it has told
        place = 0
        while place < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, place)
            for each in self._by_watch if mask & _OVERFLOW else (number,):
                told[each] = told.get(each, 0) | mask
            place += _EVENT.size + length
        return [text for number, mask in told.items() if number in self._by_watch for text in self._heard(number, mask)]

    def _heard(self, number: int, mask: int) -> list[str]:
        one = self._by_watch[number]
        troubles = _look_at(one)
        is_gone = bool(mask & _IGNORED)  # the file was taken away, and the watch with it
        if one.has_ended and (is_gone or (mask & (_WRITER_LEFT | _OVERFLOW) and not _is_written(one.path))):
            self._unwatch(number)
        return troubles

    def _unwatch(self, number: int) -> None:
        _libc.inotify_rm_watch(self.descriptor, number)
        del self._by_watch[number]


def _fates(one: _Capped) -> list[str]:
    return ["erased"] * one.is_erased + ["removed"] * one.is_removed


def _look_at(one: _Capped) -> list[str]:
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
        text = f"run {one.run_id}: its output of more than {one.limit} bytes could not be cut: {error.strerror}"
        is_new, one.has_trouble = not one.has_trouble, True
        return [text] if is_new else []
    return []


def _punch(one: _Capped, limit: int) -> None:
    """Punch out what is between head and tail, once that is an eighth of the limit. Raise OSError."""
    head = max(BLOCK, limit // 2 // BLOCK * BLOCK)
    end = (one.size - limit // 2) // BLOCK * BLOCK
    if one.size <= limit or end - max(head, one.dropped_to) < max(BLOCK, limit // 8):
        return
    descriptor = os.open(one.path, os.O_WRONLY | _OPEN)
    try:  # from the head on: where the hole was, an erased file may have been written again
        if _libc.fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, head, end - head) == 0:
            one.dropped_to = end
            return
        number = ctypes.get_errno()
        if number in (errno.EOPNOTSUPP, errno.ENOSYS):
            os.ftruncate(descriptor, head)  # the tail cannot be kept, but the disk can
            one.size = head
            raise OSError(number, "its file system makes no holes, so all behind the head is dropped")
        raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def _is_written(path: str) -> bool:
    """Return whether somebody has a file open for writing: exactly then nobody is given a lease for reading (fcntl(2))."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _OPEN)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # to us, when somebody opens it meanwhile: does nothing
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:  # or there are no leases here: then it is watched until it is taken away
        return True
    finally:
        os.close(descriptor)
    return False
