"""The keeper's journal: which children it was told to start, started, and saw end; it outlives the keeper.

One JSON object a line. An intent is written before a child is started, its process id after; an end is on the disk
(fdatasync) before it is reported; what the daemon has recorded is forgotten. So whoever reads the journal next, after the
keeper was killed or the host went down, can tell what runs, what has ended and how, and what was never started.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

LARGEST = 4 * 1024 * 1024  # bytes; a longer journal is written anew, with what is still of use
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
KINDS = ("intent", "start", "end")


class Journal:
    """The journal at `path`; `runs` is what it says: by run_id, a mapping with `intent`, `start` and `end`."""

    def __init__(self, path: str, boot: str) -> None:
        self._path = path
        self.boot_before: str | None = None  # the host's start of which the runs in it are, when there are some
        self.runs: dict[str, dict[str, Any]] = {}
        self._read()
        self._boot = boot
        self._file = -1
        self._size = 0
        self._pending = b""
        try:
            self._write_anew()
        except OSError:  # a full disk: what is there goes on; the boot of its lines is the one that it names
            self._open(0)
            self._append({"kind": "boot", "id": boot})

    def note(self, kind: str, run_id: str, values: Mapping[str, Any]) -> None:
        """Add what is known of a run, to be written with the next `flush` or `sync`."""
        self.runs.setdefault(run_id, {})[kind] = dict(values)
        self._append({"kind": kind, "run": run_id, **values})

    def sync(self) -> None:
        """Return when everything noted is on the disk. Raise OSError when it cannot be: it is tried again with the next."""
        self.flush()
        if self._pending:
            raise OSError(errno.ENOSPC, "the journal is not written (is the disk full?)")
        os.fdatasync(self._file)

    def forget(self, run_ids: Iterable[str]) -> None:
        """Drop runs whose end the daemon has recorded."""
        gone = [run_id for run_id in run_ids if self.runs.pop(run_id, None) is not None]
        if gone:
            self._append({"kind": "forget", "runs": gone})
            self.flush()
        if self._size > LARGEST or (not self.runs and self._size > LARGEST // 16):
            with suppress(OSError):  # the disk is full: it is tried again with the next
                self._write_anew()

    def _append(self, line: Mapping[str, Any]) -> None:
        self._pending += _line(line)

    def flush(self) -> None:
        """Hand over to the kernel what it takes, now: it survives us then."""
        with suppress(OSError):  # a full disk: it is kept, and what was written of a line is not written twice
            while self._pending:
                written = os.write(self._file, self._pending)
                self._pending = self._pending[written:]
                self._size += written

    def _read(self) -> None:
        try:
            with open(self._path, "rb") as file:
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines[:-1]:  # the last one is empty, or was cut short
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue

    def _take(self, line: dict[str, Any]) -> None:
        kind = line.pop("kind")
        if kind == "boot":
            self.boot_before = line["id"]
        elif kind == "forget":
            for run_id in line["runs"]:
                self.runs.pop(run_id, None)
        elif kind in KINDS:
            self.runs.setdefault(line.pop("run"), {})[kind] = line

    def _write_anew(self) -> None:
        """Write a journal of what is still of use, and put it in the old one's place; that stays when the disk is full."""
        lines = [{"kind": "boot", "id": self._boot}]
        lines += [{"kind": kind, "run": run_id, **known[kind]} for run_id, known in self.runs.items() for kind in KINDS
                  if kind in known]  # fmt: skip
        data = b"".join(map(_line, lines))
        fresh = f"{self._path}.new"
        with open(os.open(fresh, FLAGS | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, self._path)
        folder = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(folder)
        os.close(folder)
        self._open(len(data))

    def _open(self, size: int) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = os.open(self._path, FLAGS, 0o600)
        self._size, self._pending = size, b""


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"
