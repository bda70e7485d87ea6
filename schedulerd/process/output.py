"""Where the output of runs is kept: one file a run, in a folder a day, which the child itself writes.

A file's place follows from the run_id alone (it begins with the time), so nothing else has to be remembered. Offsets are
those of the whole output: when a run writes more than it may, a hole is made in the middle of its file, which keeps its
length. What was dropped there reads as zeros, so no reader here ever reads in a hole (lseek(2), SEEK_DATA and SEEK_HOLE).
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
MOST_EMPTIED = 1000  # that are remembered, until the history has their ends
MOST_HOLES = 1000  # that are counted: we make one, but the file is the child's to write
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
RETRIES = 10  # of a read that a hole came across

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OutputRange:
    """Output without a gap: bytes `start` up to `end` (exclusive) of `size`."""

    start: int
    end: int
    size: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """What was read: `dropped` bytes that are gone, then `data`; `next_offset` is where to read on."""

    data: bytes
    next_offset: int
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class OutputStats:
    """How many bytes a run has written, and how many of them were dropped."""

    size: int
    dropped: int = 0


class OutputFolder:
    """The files with the output of runs below `root`, which is made, mode 0700."""

    def __init__(self, root: str) -> None:
        self.root = root
        os.makedirs(root, 0o700, exist_ok=True)
        self._trouble: str | None = None  # why no file can be made
        self._probing = threading.Lock()  # one would remove the file that another one has just made
        self._emptied: OrderedDict[str, None] = OrderedDict()  # runs whose empty files were taken away just now
        self._made = ""  # the day's folder that was made last

    def path_of(self, run_id: str) -> str:
        """Return where the output of a run is, whether it is there or not."""
        return f"{self.root}/{_day_of(run_id)}/{run_id}.log"

    def make(self, run_id: str) -> str:
        """Return `path_of`, after making the folder that it is in."""
        path = self.path_of(run_id)
        folder = os.path.dirname(path)
        if folder != self._made or not _is_folder(folder):
            if os.path.lexists(folder) and not _is_folder(folder):
                self._set_aside(folder, run_id)
            make_private(folder)
            self._made = folder
        return path

    def _set_aside(self, path: str, run_id: str) -> None:
        """Rename what is where the folder of a day should be. Raise OSError."""
        aside = free_name(path, "aside", EPOCH + timedelta(milliseconds=_milliseconds_of(run_id)))
        os.rename(path, aside)
        log.error("%s was no folder: it is set aside as %s", path, aside)

    def refusal(self) -> str | None:
        """Try to make a file; return why there can be none, in words. Until there can, it is one of the `troubles`."""
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
            self._trouble = f"cannot make an output file in {self.root}: {_reason(error, self.root)}"
        if self._trouble is not None and before is None:
            log.error("%s: no job can start", self._trouble)
        elif self._trouble is None and before is not None:
            log.info("output files can be made again in %s", self.root)
        return self._trouble

    def look(self) -> list[str]:
        """Look again at what was wrong, if something was; return what is, in words."""
        if self._trouble is not None:
            self.refusal()
        return self.troubles

    @property
    def troubles(self) -> list[str]:
        """What is wrong with the folder, in words."""
        return [self._trouble] if self._trouble is not None else []

    def is_gone(self, run_id: str) -> bool:
        """Return whether the file that a run had is not there, and that is not because it was empty at the run's end."""
        return self._found(run_id) is None and run_id not in self._emptied

    def instead(self, run_id: str) -> str | None:
        """Return in words what is where the output of a run should be and is no file, None when nothing is.

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
        """Return how many bytes a finished run has written; a file without any is taken away."""
        found = self._found(run_id)
        if found is not None and found.st_size == 0:
            self._emptied[run_id] = None
            with suppress(FileNotFoundError):
                os.unlink(self.path_of(run_id))
        while len(self._emptied) > MOST_EMPTIED:
            self._emptied.popitem(last=False)
        return found.st_size if found is not None else 0

    def size(self, run_id: str) -> int:
        """Return how many bytes a run has written so far, dropped ones included."""
        found = self._found(run_id)
        return found.st_size if found is not None else 0

    def kept(self, run_id: str) -> OutputStats:
        """Return how much a run has written so far, and what was dropped of it, as far as it can be opened now."""
        try:
            with self._opened(run_id) as file:
                return _kept(file) if file is not None else OutputStats(0)
        except BlockingIOError:  # a process of its user has a lease on it
            return OutputStats(self.size(run_id))

    def stretch(self, run_id: str, offset: int) -> OutputRange:
        """Return the first stretch of output at or after `offset`; an empty one at the end when there is none.

        Raise BlockingIOError while a process of the run's user has a lease on it (fcntl(2)).
        """
        with self._opened(run_id) as file:
            return _stretch(file, offset) if file is not None else OutputRange(0, 0, 0)

    def read(self, run_id: str, offset: int, most: int) -> Chunk:
        """Return at most `most` bytes from `offset` on, or from the end of the hole that it is in; never across a hole."""
        with self._opened(run_id) as file:
            return _read(file, offset, most) if file is not None else Chunk(b"", offset)

    def tail(self, run_id: str, most: int = TAIL_BYTES, secrets: Sequence[bytes] = ()) -> str:
        """Return the last `most` bytes of a run's output as text, with `***` in place of each secret.

        Whole lines where there are any; nothing from a hole, and nothing before one.
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
        """Take away a run's output, and its day's folder when that was the last; return the bytes that are free now."""
        path = self.path_of(run_id)
        for unread in (f"{path.removesuffix('.log')}.result", f"{os.path.dirname(self.root)}/results/{run_id}.result"):
            with suppress(OSError):  # it is only there when nobody saw the run's end
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
        """Return the days that there is output of, oldest first, as YYYY-MM-DD."""
        with os.scandir(self.root) as found:
            folders = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
        return sorted(filter(_DAY.fullmatch, folders))

    def outputs_of(self, day: str) -> Iterator[StoredOutput]:
        """Yield the files with output of a day."""
        with suppress(FileNotFoundError), os.scandir(f"{self.root}/{day}") as found:
            for entry in found:
                if _FILE.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        stat = entry.stat(follow_symlinks=False)
                        written_at = EPOCH + timedelta(microseconds=stat.st_mtime_ns // 1000)
                        yield StoredOutput(entry.name.removesuffix(".log"), stat.st_blocks * BLOCK, written_at)

    def size_of_all(self) -> int:
        """Return how many bytes of the disk all outputs take."""
        return sum(each.size_bytes for day in self.days() for each in self.outputs_of(day))

    def size_on_disk(self, run_id: str) -> int | None:
        """Return how many bytes of the disk the output of a run takes, None when there is none."""
        try:
            return os.lstat(self.path_of(run_id)).st_blocks * BLOCK
        except (FileNotFoundError, ValueError):
            return None

    @contextmanager
    def _opened(self, run_id: str) -> Iterator[int | None]:
        """Lend a descriptor of a run's file, None when there is none: one of its own, since seeking moves it."""
        file = self._in_day(run_id, lambda name, folder: os.open(name, _FLAGS, dir_fd=folder))
        try:
            yield file if file is not None and stat.S_ISREG(os.fstat(file).st_mode) else None
        finally:
            if file is not None:
                os.close(file)

    def _found(self, run_id: str) -> os.stat_result | None:
        """Return what is known of a run's file, None when there is none."""
        found = self._in_day(run_id, lambda name, folder: os.stat(name, dir_fd=folder, follow_symlinks=False))
        return found if found is not None and stat.S_ISREG(found.st_mode) else None

    def _in_day(self, run_id: str, ask: Callable[[str, int], T]) -> T | None:
        """Return what `ask` says of a run's file, by its name in its day's folder; None when either is none."""
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
    """Return whether a folder is at a path, and no link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def _reason(error: OSError, folder: str) -> str:
    """Return an error in words; one about room says whether it is files that the disk takes no more of."""
    reason = error.strerror or str(error)
    with suppress(OSError):
        found = os.statvfs(folder)
        if error.errno == errno.ENOSPC and found.f_files and not found.f_favail:
            return f"{reason} (it has no free inodes)"
    return reason


def _read(file: int, offset: int, most: int) -> Chunk:
    """Read, and look for the hole once more afterwards: it may have grown over what was just read."""
    stretch = _stretch(file, offset)
    for _ in range(RETRIES):
        length = max(0, min(most, stretch.end - stretch.start))
        data = os.pread(file, length, stretch.start)
        still = _stretch(file, offset)
        if still.start == stretch.start and still.end >= stretch.start + len(data):
            return Chunk(data, stretch.start + len(data), stretch.start - offset)
        stretch = still
    return Chunk(b"", stretch.start, stretch.start - offset)


def _stretch(file: int, offset: int) -> OutputRange:
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
        if error.errno == errno.ENXIO:  # nothing but a hole from here on
            return at_end
        return unsupported


def _kept(file: int) -> OutputStats:
    size = os.fstat(file).st_size
    dropped, at = 0, 0
    for _ in range(MOST_HOLES):
        stretch = _stretch(file, at)
        dropped += max(0, stretch.start - at)
        if stretch.end >= size:
            break
        at = stretch.end
    return OutputStats(size, dropped)


def _day_of(run_id: str) -> str:
    return _day_name(_milliseconds_of(run_id) // MILLISECONDS_A_DAY)


def _milliseconds_of(run_id: str) -> int:
    return int(run_id[:8] + run_id[9:13], 16)


@lru_cache(maxsize=8)
def _day_name(days: int) -> str:
    return (EPOCH + timedelta(days=days)).strftime("%Y-%m-%d")
