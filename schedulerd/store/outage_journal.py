"""The outage journal: a file of its own, in which changes wait on the disk while the history cannot be written.

Its place is reserved beforehand (posix_fallocate(3)), so it can be written when the disk that it shares with the history
is full. A group of records is one write and one fdatasync(2); each record has its length and a checksum, so a record that
a crash cut short is not taken for one. All records of one filling bear its number, which is also the time, in microseconds,
at which it began: what stands behind them, from an earlier filling, does not, and the file can be emptied by clearing
its first few bytes. Zeros end the records: where anything else does, a crash cut the last group short, or the file is
damaged, which look alike; such a file is copied before it is written to. An I/O error is no damage: what it failed on is
tried again.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..core.errors import StoreError
from ..core.models import from_micros, to_micros
from ..host.files import fsync_folder
from .sqlite.damage import free_name

FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
SMALLEST = 256 * 1024  # bytes: on a disk that has less, there is no journal
RESERVE = 0.1  # of the size, which only ends of runs may use: what was started can be told
_BLOCK = 64 * 1024  # bytes of a copy; those that are all zeros take no room in it
_HEAD = struct.Struct("<IIQ")  # length of what follows, checksum, number of the filling
_NOTHING = bytes(_HEAD.size)  # ends the records: behind it may be the rest of a group that could not be written whole


class OutageJournalError(StoreError):
    """The outage journal cannot be read or written."""


class NoRoomError(OutageJournalError):
    """There is no room on the disk for an outage journal."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in the journal to be written into the history."""

    changes: int = 0
    size_bytes: int = 0
    since: datetime | None = None


class OutageJournal:
    """The journal at `path`, mode 0600; for one thread at a time."""

    def __init__(self, path: str, size: int) -> None:
        """Open or make it, and find what waits in it. It is smaller than `size` when the disk is. Raise JournalError."""
        self.path = path
        self._filling = 0
        self._count = 0
        self._end = 0
        self.is_untidy = False  # what does not belong to the records may stand behind them, and be taken for one
        self._file = -1
        try:
            self._file = os.open(path, FLAGS, 0o600)
            self.size = max(os.fstat(self._file).st_size, _reserve(self._file, size))
        except OSError as error:
            if self._file >= 0:
                os.close(self._file)
            kind = NoRoomError if error.errno in (errno.ENOSPC, errno.EDQUOT) else OutageJournalError
            raise kind(f"the outage journal {path} cannot be used: {error.strerror}") from error
        try:
            for place, _record in self._read(0, self.size):
                self._count, self._end = self._count + 1, place
        except OutageJournalError:
            os.close(self._file)
            raise

    @property
    def backlog(self) -> Backlog:
        """Return what waits."""
        return Backlog(self._count, self._end, from_micros(self._filling)) if self._count else Backlog()

    @property
    def is_cut(self) -> bool:
        """Return whether what follows the last record is not their end: there may have been more. Raise JournalError."""
        try:
            return any(os.pread(self._file, _HEAD.size, self._end))
        except OSError as error:
            raise self._unreadable(error) from error

    @property
    def has_room(self) -> bool:
        """Return whether it can take many records more."""
        return self._end < self.size * (1 - 2 * RESERVE)

    def room(self, may_use_reserve: bool = False) -> int:
        """Return how many bytes of records fit in, see `framed_size`."""
        return int(self.size * (1 if may_use_reserve else 1 - RESERVE)) - self._end - len(_NOTHING)

    @property
    def full(self) -> str:
        """Return in words that it is full."""
        return (
            f"the outage journal {self.path} is full: {self._end} of {self.size} bytes, {self._count} changes wait for the "
            "history (outage_journal makes it larger)"
        )

    def append(self, records: Sequence[bytes], now: datetime, may_use_reserve: bool = False) -> None:
        """Write records behind those that wait; durable when it returns.

        Raise JournalError: none of them is in it, as soon as it is tidy.
        """
        if sum(map(framed_size, records)) > self.room(may_use_reserve):
            raise OutageJournalError(self.full)
        filling = self._filling if self._count else self._next_filling(now)
        data = b"".join(_framed(record, filling) for record in records) + _NOTHING
        self.is_untidy = True
        try:
            _write(self._file, data, self._end)
            os.fdatasync(self._file)
        except OSError as error:
            raise OutageJournalError(f"the outage journal {self.path} cannot be written: {error.strerror}") from error
        self._filling, self._count, self._end = filling, self._count + len(records), self._end + len(data) - len(_NOTHING)
        self.is_untidy = False

    def _next_filling(self, now: datetime) -> int:
        number = to_micros(now)
        return number if number != self._filling else number + 1  # the clock may have been set back

    def records(self, place: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield the records from a place on, oldest first, each with the place behind it. Raise JournalError."""
        return self._read(place, self._end)

    def _read(self, place: int, end: int) -> Iterator[tuple[int, bytes]]:
        try:
            with open(self._file, "rb", closefd=False) as file:
                file.seek(place)
                while place < end and len(head := file.read(_HEAD.size)) == _HEAD.size:
                    length, checksum, filling = _HEAD.unpack(head)
                    if not self._count:
                        self._filling = filling
                    if length == 0 or filling != self._filling or place + _HEAD.size + length > self.size:
                        return
                    record = file.read(length)
                    if len(record) != length or _checksum(record, filling) != checksum:
                        return
                    place += _HEAD.size + length
                    yield place, record
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> OutageJournalError:
        return OutageJournalError(
            f"the outage journal {self.path} cannot be read ({error.strerror}): what it holds of starts and ends is not in "
            "the history. If it stays so, move the file away: the changes in it are lost then"
        )

    def empty(self) -> None:
        """Forget everything in it: it is in the history. Raise JournalError: it is empty, as soon as it is tidy."""
        if self._count:
            self._count = self._end = 0
            self.is_untidy = True
            self.tidy()

    def tidy(self) -> None:
        """Let nothing stand behind the records that could be taken for one. Raise JournalError."""
        try:
            _write(self._file, _NOTHING, self._end)
            os.fdatasync(self._file)
        except OSError as error:
            raise OutageJournalError(f"the outage journal {self.path} cannot be written: {error.strerror}") from error
        self.is_untidy = False

    def keep_copy(self, now: datetime) -> str:
        """Copy the whole file beside it, end the records behind the last that can be read, and return the copy's path.

        Durable when it returns. Raise JournalError.
        """
        aside = free_name(self.path, "damaged", now)
        try:
            _copy(self._file, aside)
            _write(self._file, _NOTHING, self._end)
            os.fdatasync(self._file)
        except OSError as error:
            raise OutageJournalError(
                f"the outage journal {self.path} may be damaged, and cannot be copied to {aside}: {error.strerror}; "
                "make room there, or move it away: the changes in it are lost then"
            ) from error
        return aside

    def close(self) -> None:
        """Close the file; what waits in it, the next daemon finds."""
        os.close(self._file)


def _reserve(file: int, size: int) -> int:
    """Reserve `size` bytes, or as much as there is, and return how much. Raise OSError when that is hardly anything."""
    while True:
        try:
            os.posix_fallocate(file, 0, size)
        except OSError:
            if size // 2 < SMALLEST:
                raise
            size //= 2
        else:
            os.fsync(file)
            return size


def _copy(file: int, target: str) -> None:
    """Copy a file, durable, or leave nothing of it. Raise OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    copy = os.open(target, flags, 0o600)
    try:
        size = os.fstat(file).st_size
        for place in range(0, size, _BLOCK):
            if (block := os.pread(file, _BLOCK, place)).strip(b"\0"):
                _write(copy, block, place)
        os.truncate(copy, size)
        os.fsync(copy)
        fsync_folder(os.path.dirname(target) or ".")
    except OSError:
        os.unlink(target)
        raise
    finally:
        os.close(copy)


def framed_size(record: bytes) -> int:
    """Return how many bytes of the journal a record takes."""
    return _HEAD.size + len(record)


def _framed(record: bytes, filling: int) -> bytes:
    return _HEAD.pack(len(record), _checksum(record, filling), filling) + record


def _checksum(record: bytes, filling: int) -> int:
    return zlib.crc32(record, filling & 0xFFFFFFFF)


def _write(file: int, data: bytes, place: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, place)
        view, place = view[written:], place + written
