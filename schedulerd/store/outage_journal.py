"""The outage journal: a file in which changes wait on the disk while the history cannot be written.

Its space is reserved in advance (posix_fallocate(3)), so it can be written when the disk that it shares with the history is
full. A group of records is one write and one fdatasync(2). Each record has a length and a checksum, so an incomplete record
is recognized. All records of one filling have the same number, which is also the time in microseconds at which the filling
began. Records of earlier fillings behind them have other numbers, so the file is emptied by clearing its first few bytes.
Zeros end the records. Anything else at the end means that a crash cut the last group short or that the file is damaged,
which cannot be distinguished; such a file is copied before it is written. An I/O error is not damage: the call is retried.
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
SMALLEST = 256 * 1024  # bytes; with less free space there is no journal
RESERVE = 0.1  # fraction of the size that only ends of runs may use
_BLOCK = 64 * 1024  # bytes in a block of a copy; blocks of zeros use no space
_HEAD = struct.Struct("<IIQ")  # length of what follows, checksum, number of the filling
_NOTHING = bytes(_HEAD.size)  # ends the records; the rest of an incomplete group may follow


class OutageJournalError(StoreError):
    """The outage journal cannot be read or written."""


class NoRoomError(OutageJournalError):
    """The disk has no space for an outage journal."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much the journal holds that is not in the history."""

    changes: int = 0
    size_bytes: int = 0
    since: datetime | None = None


class OutageJournal:
    """The journal at `path`, mode 0600; for one thread at a time."""

    def __init__(self, path: str, size: int) -> None:
        """Open or create the file and read its records. With little free space it is smaller than `size`.

        Raise OutageJournalError.
        """
        self.path = path
        self._filling = 0
        self._count = 0
        self._end = 0
        self.is_untidy = False  # an incomplete record may follow the records
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
        """Return the number, size and age of the records."""
        return Backlog(self._count, self._end, from_micros(self._filling)) if self._count else Backlog()

    @property
    def is_cut(self) -> bool:
        """Return whether the last record is not followed by zeros: records may be lost. Raise OutageJournalError."""
        try:
            return any(os.pread(self._file, _HEAD.size, self._end))
        except OSError as error:
            raise self._unreadable(error) from error

    @property
    def has_room(self) -> bool:
        """Return whether there is space for many more records."""
        return self._end < self.size * (1 - 2 * RESERVE)

    def room(self, may_use_reserve: bool = False) -> int:
        """Return how many bytes of records fit into the file; see `framed_size`."""
        return int(self.size * (1 if may_use_reserve else 1 - RESERVE)) - self._end - len(_NOTHING)

    @property
    def full(self) -> str:
        """Return the message that the journal is full."""
        return (
            f"the outage journal {self.path} is full: {self._end} of {self.size} bytes, {self._count} changes wait for the "
            "history (the setting outage_journal makes it larger)"
        )

    def append(self, records: Sequence[bytes], now: datetime, may_use_reserve: bool = False) -> None:
        """Append records; they are durable when it returns.

        Raise OutageJournalError: none of them is in the journal, once `tidy` has succeeded.
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
        """Yield the records from an offset on, oldest first, each with the offset after it. Raise OutageJournalError."""
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
            f"the outage journal {self.path} cannot be read ({error.strerror}): its starts and ends are not in the "
            "history. If the error persists, move the file away; the changes in it are lost then"
        )

    def empty(self) -> None:
        """Remove all records. Raise OutageJournalError: they are removed once `tidy` has succeeded."""
        if self._count:
            self._count = self._end = 0
            self.is_untidy = True
            self.tidy()

    def tidy(self) -> None:
        """End the records with zeros. Raise OutageJournalError."""
        try:
            _write(self._file, _NOTHING, self._end)
            os.fdatasync(self._file)
        except OSError as error:
            raise OutageJournalError(f"the outage journal {self.path} cannot be written: {error.strerror}") from error
        self.is_untidy = False

    def keep_copy(self, now: datetime) -> str:
        """Copy the file, end the records after the last valid one, and return the path of the copy.

        Durable when it returns. Raise OutageJournalError.
        """
        aside = free_name(self.path, "damaged", now)
        try:
            _copy(self._file, aside)
            _write(self._file, _NOTHING, self._end)
            os.fdatasync(self._file)
        except OSError as error:
            raise OutageJournalError(
                f"the outage journal {self.path} may be damaged, and cannot be copied to {aside}: {error.strerror}; "
                "free space there, or move the file away: the changes in it are lost then"
            ) from error
        return aside

    def close(self) -> None:
        """Close the file; the next daemon reads its records."""
        os.close(self._file)


def _reserve(file: int, size: int) -> int:
    """Reserve `size` bytes or fewer, and return how many. Raise OSError for less than SMALLEST."""
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
    """Copy a file durably, or not at all. Raise OSError."""
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
    """Return how many bytes a record uses in the journal."""
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
