"""The output files of runs: one file for each run, in a folder for each day. The child itself writes the file.

The path follows from the run_id alone, which begins with the time. Offsets count the whole output: when a run exceeds its
limit, a hole is punched into the middle of its file, which keeps its length. Dropped bytes would read as zeros, so no
function here reads in a hole (lseek(2), SEEK_DATA and SEEK_HOLE).
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TypeVar

from ..core.models import EPOCH
from ..core.retention import StoredOutput
from ..host.files import free_name, make_private
from ..secrets.masking import masked_tail, reach_of

log = logging.getLogger(__name__)

TAIL_BYTES = 2000
MILLISECONDS_A_DAY = 86_400_000
MOST_EMPTIED = 1000  # runs whose removed empty files are remembered until their ends are recorded
MOST_HOLES = 1000  # that are counted: schedulerd punches one, the child may make more
BLOCK = 512  # bytes; what st_blocks counts, see stat(2)
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}  # the last for a socket, see open(2)
_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}
_FILE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.log")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
RETRIES = 10  # of a read during which a hole grew

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OutputRange:
    """A range of output without a hole: bytes `start` to `end` (exclusive) of `size`."""

    start: int
    end: int
    size: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """The result of a read: `dropped` bytes were skipped, then `data`. `next_offset` is the next offset to read."""

    data: bytes
    next_offset: int
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class OutputStats:
    """How many bytes a run has written, and how many of them were dropped."""

    size: int
    dropped: int = 0


class OutputFolder:
    """The output files below `root`, which is created with mode 0700."""

    def __init__(self, root: str) -> None:
        self.root = root
        os.makedirs(root, 0o700, exist_ok=True)
        self._trouble: str | None = None  # why no file can be created
        self._probing = threading.Lock()  # a probe would remove the file of another one
        self._emptied: OrderedDict[str, None] = OrderedDict()  # runs whose empty files were removed recently
        self._made = ""  # the folder that was created last

    def path_of(self, run_id: str) -> str:
        """Return the path of the output of a run, whether it exists or not."""
        return f"{self.root}/{_day_of(run_id)}/{run_id}.log"

    def make(self, run_id: str) -> str:
        """Return `path_of` after creating its folder. Raise OSError."""
        path = self.path_of(run_id)
        folder = os.path.dirname(path)
        if folder != self._made or not _is_folder(folder):
            if os.path.lexists(folder) and not _is_folder(folder):
                self._set_aside(folder, run_id)
            make_private(folder)
            self._made = folder
        return path

    def _set_aside(self, path: str, run_id: str) -> None:
        """Rename what is at the path of a day's folder and is no folder. Raise OSError."""
        aside = free_name(path, "aside", EPOCH + timedelta(milliseconds=_milliseconds_of(run_id)))
        os.rename(path, aside)
        log.error("%s is not a folder: it was renamed to %s", path, aside)

    def refusal(self) -> str | None:
        """Create a file as a probe; return why that fails, or None. The reason is in `troubles` until a probe succeeds."""
        with self._probing:
            return self._probed()

    def _probed(self) -> str | None:
        before, path = self._trouble, f"{self.root}/.probe"
        try:
            make_private(self.root)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            os.unlink(path)
            self._trouble = None
        except OSError as error:
            self._trouble = f"cannot create an output file in {self.root}: {_reason(error, self.root)}"
        if self._trouble is not None and before is None:
            log.error("%s: no job can start", self._trouble)
        elif self._trouble is None and before is not None:
            log.info("output files can be created again in %s", self.root)
        return self._trouble

    def check(self) -> list[str]:
        """Probe again if the last probe failed; return the `troubles`."""
        if self._trouble is not None:
            self.refusal()
        return self.troubles

    @property
    def troubles(self) -> list[str]:
        """What is wrong with the folder."""
        return [self._trouble] if self._trouble is not None else []

    def is_gone(self, run_id: str) -> bool:
        """Return whether the output file of a run was removed, and not by `settle`."""
        return self._found(run_id) is None and run_id not in self._emptied

    def instead(self, run_id: str) -> str | None:
        """Return what is at the path of a run's output and is no file, in words; None when nothing is.

        Nothing there is read, followed or waited for.
        """
        path = self.path_of(run_id)
        places = ((os.path.dirname(path), "place of its day's folder", stat.S_ISDIR), (path, "its place", stat.S_ISREG))
        for each, place, is_right in places:
            with suppress(FileNotFoundError, NotADirectoryError):
                mode = os.lstat(each).st_mode
                if not is_right(mode):
                    return f"{_KINDS.get(stat.S_IFMT(mode), 'a device')} is in {place}"
        return None

    def settle(self, run_id: str) -> int:
        """Return how many bytes a finished run has written; remove an empty file."""
        found = self._found(run_id)
        if found is not None and found.st_size == 0:
            self._emptied[run_id] = None
            with suppress(FileNotFoundError):
                os.unlink(self.path_of(run_id))
        while len(self._emptied) > MOST_EMPTIED:
            self._emptied.popitem(last=False)
        return found.st_size if found is not None else 0

    def size(self, run_id: str) -> int:
        """Return how many bytes a run has written so far, dropped bytes included."""
        found = self._found(run_id)
        return found.st_size if found is not None else 0

    def stats(self, run_id: str) -> OutputStats:
        """Return the size of a run's output so far, and what was dropped of it if the file can be opened now."""
        try:
            with self._opened(run_id) as file:
                return _stats(file) if file is not None else OutputStats(0)
        except BlockingIOError:  # a process of the run's user holds a lease
            return OutputStats(self.size(run_id))

    def range_at(self, run_id: str, offset: int) -> OutputRange:
        """Return the first range of output at or after `offset`; an empty one at the end when there is none.

        Raise BlockingIOError while a process of the run's user holds a lease on the file (fcntl(2)).
        """
        with self._opened(run_id) as file:
            return _range(file, offset) if file is not None else OutputRange(0, 0, 0)

    def read(self, run_id: str, offset: int, most: int) -> Chunk:
        """Return at most `most` bytes from `offset` on, or from the end of the hole at `offset`; never across a hole."""
        with self._opened(run_id) as file:
            return _read(file, offset, most) if file is not None else Chunk(b"", offset)

    def tail(self, run_id: str, most: int = TAIL_BYTES, secrets: Sequence[bytes] = ()) -> str:
        """Return the last `most` bytes of a run's output as text, with `***` in place of each secret.

        Whole lines if possible; no bytes from a hole or before one.
        """
        size = self.size(run_id)
        at = max(0, size - most - reach_of(secrets))
        is_after_gap, data = False, b""
        while at < size and ((chunk := self.read(run_id, at, size - at)).data or chunk.dropped):
            is_after_gap, data = (True, chunk.data) if chunk.dropped else (is_after_gap, data + chunk.data)
            at = chunk.next_offset
        shown = masked_tail(data, secrets, most, is_after_gap)
        if is_after_gap or size > most:
            shown = shown.partition(b"\n")[2] or shown
        return shown.decode("utf-8", "replace").rstrip()

    def delete(self, run_id: str) -> int:
        """Delete the output of a run, and the folder of its day when it is empty; return the size in bytes."""
        path = self.path_of(run_id)
        for unread in (f"{path.removesuffix('.log')}.result", f"{os.path.dirname(self.root)}/results/{run_id}.result"):
            with suppress(OSError):  # it exists only when the end of the run was not recorded
                os.unlink(unread)
        try:
            size = os.lstat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        if os.path.dirname(path) != self._made:
            with suppress(OSError):  # not empty yet
                os.rmdir(os.path.dirname(path))
        return size

    def days(self) -> list[str]:
        """Return the days that have output, oldest first, as YYYY-MM-DD."""
        with os.scandir(self.root) as found:
            folders = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
        return sorted(filter(_DAY.fullmatch, folders))

    def outputs_of(self, day: str) -> Iterator[StoredOutput]:
        """Yield the output files of a day."""
        with suppress(FileNotFoundError), os.scandir(f"{self.root}/{day}") as found:
            for entry in found:
                if _FILE.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        stat = entry.stat(follow_symlinks=False)
                        written_at = EPOCH + timedelta(microseconds=stat.st_mtime_ns // 1000)
                        yield StoredOutput(entry.name.removesuffix(".log"), stat.st_blocks * BLOCK, written_at)

    def size_of_all(self) -> int:
        """Return how many bytes all outputs use on the disk."""
        return sum(each.size_bytes for day in self.days() for each in self.outputs_of(day))

    def size_on_disk(self, run_id: str) -> int | None:
        """Return how many bytes the output of a run uses on the disk, None when there is none."""
        try:
            return os.lstat(self.path_of(run_id)).st_blocks * BLOCK
        except (FileNotFoundError, ValueError):
            return None

    @contextmanager
    def _opened(self, run_id: str) -> Iterator[int | None]:
        """Yield a descriptor of a run's file, None when there is none. Not shared: seeking moves its offset."""
        file = self._in_day(run_id, lambda name, folder: os.open(name, _FLAGS, dir_fd=folder))
        try:
            yield file if file is not None and stat.S_ISREG(os.fstat(file).st_mode) else None
        finally:
            if file is not None:
                os.close(file)

    def _found(self, run_id: str) -> os.stat_result | None:
        """Return the status of a run's file (stat(2)), None when there is none."""
        found = self._in_day(run_id, lambda name, folder: os.stat(name, dir_fd=folder, follow_symlinks=False))
        return found if found is not None and stat.S_ISREG(found.st_mode) else None

    def _in_day(self, run_id: str, ask: Callable[[str, int], T]) -> T | None:
        """Return `ask(name, folder)` for a run's file in its day's folder; None when either does not exist."""
        day, name = os.path.split(self.path_of(run_id))
        folder = -1
        try:
            folder = os.open(day, _FOLDER)
            return ask(name, folder)
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        finally:
            if folder >= 0:
                os.close(folder)


def _is_folder(path: str) -> bool:
    """Return whether a path is a folder and not a link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def _reason(error: OSError, folder: str) -> str:
    """Return the text of an error; for ENOSPC, say when it is inodes that have run out."""
    reason = error.strerror or str(error)
    with suppress(OSError):
        found = os.statvfs(folder)
        if error.errno == errno.ENOSPC and found.f_files and not found.f_favail:
            return f"{reason} (it has no free inodes)"
    return reason


def _read(file: int, offset: int, most: int) -> Chunk:
    """Read, and check the hole again afterwards: it may have grown over the bytes that were read."""
    part = _range(file, offset)
    for _ in range(RETRIES):
        length = max(0, min(most, part.end - part.start))
        data = os.pread(file, length, part.start)
        still = _range(file, offset)
        if still.start == part.start and still.end >= part.start + len(data):
            return Chunk(data, part.start + len(data), part.start - offset)
        part = still
    return Chunk(b"", part.start, part.start - offset)


def _range(file: int, offset: int) -> OutputRange:
    size = os.fstat(file).st_size
    if offset >= size:
        return OutputRange(offset, offset, size)
    start = _seek(file, offset, os.SEEK_DATA, offset, size)
    end = _seek(file, start, os.SEEK_HOLE, size, size) if start < size else size
    return OutputRange(start, max(start, end), size)


def _seek(file: int, offset: int, whence: int, unsupported: int, at_end: int) -> int:
    try:
        return os.lseek(file, offset, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:  # only a hole follows
            return at_end
        return unsupported


def _stats(file: int) -> OutputStats:
    size = os.fstat(file).st_size
    dropped, at = 0, 0
    for _ in range(MOST_HOLES):
        part = _range(file, at)
        dropped += max(0, part.start - at)
        if part.end >= size:
            break
        at = part.end
    return OutputStats(size, dropped)


def _day_of(run_id: str) -> str:
    return _day_name(_milliseconds_of(run_id) // MILLISECONDS_A_DAY)


def _milliseconds_of(run_id: str) -> int:
    return int(run_id[:8] + run_id[9:13], 16)


@lru_cache(maxsize=8)
def _day_name(days: int) -> str:
    return (EPOCH + timedelta(days=days)).strftime("%Y-%m-%d")
