"""The keeper's journal: which children it was told to start, started, and saw end; it outlives the keeper.

One JSON object a line (records.py). That a child is to be started is handed to the kernel before it is, with room on the
disk for all that will be noted of it, or it is not started; so it survives the keeper, and a host that goes down takes the
child with it. The process id is noted after; an end is on the disk (fdatasync) before it is reported; what the daemon has
recorded is forgotten. So whoever reads the journal next, after the keeper was killed or the host went down, can tell what
runs, what has ended and how, and what was never started.

The last is a proof by absence, and `doubt` says why it does not hold: something may have been lost. It lasts until the
daemon has settled what earlier ones left open. A run that was forgotten is absent, too: the last of those are remembered.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from ...host.files import free_name
from .records import KINDS, JournalRecord, line_of, record_of
from .reserved_file import ReservedFile, content_of

LARGEST = 4 * 1024 * 1024  # bytes; a longer journal is written anew, with what is still of use
ROOM_OF_A_RUN = 512  # bytes, for its start and its end
REMEMBERED = 512  # runs that were forgotten last
FORMAT = 2  # from which on nothing is started that is not in the journal


class KeeperJournal:
    """The journal at `path`; `runs` is what it says: by run_id, a mapping with `intent`, `start` and `end`."""

    def __init__(self, path: str, boot: str, now: datetime) -> None:
        self._path = path
        self._boot = boot
        self._now = now
        self.boot_before: str | None = None  # the host's start of which the runs in it are, when there are some
        self.runs: dict[str, dict[str, Any]] = {}
        self.doubt: str | None = None  # why a run that is not in it may have been started all the same
        self.troubles: list[str] = []  # with what was found, for the operator
        self.forgotten_to = ""  # all runs that are remembered no more are up to this one (their ids sort by time)
        self._forgotten: deque[str] = deque()
        self._format: int | None = None
        self._pending = b""
        self._is_unsynced = False
        content = self._read()
        self._open_runs = sum("end" not in known for known in self.runs.values())
        self._file = ReservedFile(path)
        self._anew_at = LARGEST
        try:
            self._write_anew()
        except OSError:  # a full disk: what is there goes on; the boot of its lines is the one that it names
            with suppress(OSError):
                if content is not None:
                    self._file.go_on(content)
            self._pending = b"".join(map(line_of, self._head()))

    # What is noted

    @property
    def is_behind(self) -> bool:
        """Whether there is something of a run that is not on the disk, and that no daemon has recorded."""
        return bool(self.runs) and (bool(self._pending) or self._is_unsynced or not self._file.is_sound)

    @property
    def forgotten(self) -> list[str]:
        """The runs that were forgotten last."""
        return list(self._forgotten)

    def intend(self, intents: Mapping[str, Mapping[str, Any]]) -> None:
        """Write that runs are to be started, before any of them is. Raise OSError: then none of it is in the journal."""
        lines = b"".join(line_of({"kind": "intent", "run": run_id, **values}) for run_id, values in intents.items())
        self._write()
        self._make_room(len(lines), len(intents))
        self._file.append_whole(lines)
        for run_id, values in intents.items():
            self.runs[run_id] = {"intent": dict(values)}
        self._open_runs += len(intents)

    def note(self, kind: str, run_id: str, values: Mapping[str, Any]) -> None:
        """Add what is known of a run, to be written with the next `flush` or `sync`."""
        known = self.runs.setdefault(run_id, {})
        if kind == "end" and "end" not in known:
            self._open_runs -= 1
            self._is_unsynced = True
        known[kind] = dict(values)
        self._pending += line_of({"kind": kind, "run": run_id, **values})

    def sync(self) -> None:
        """Return when everything noted is on the disk. Raise OSError when it cannot be: it is tried again with the next."""
        self._write()
        self._file.sync()
        self._is_unsynced = False

    def withdraw(self, run_id: str) -> None:
        """Drop a run that could not be started; `flush` writes it."""
        if self._drop(run_id):
            with suppress(OSError):  # a full disk: whoever reads it finds no trace of its start
                self._add({"kind": "withdrawn", "runs": [run_id]})

    def forget(self, run_ids: Iterable[str]) -> None:
        """Drop runs whose end the daemon has recorded."""
        gone = [run_id for run_id in run_ids if self._drop(run_id)]
        if gone:
            self._remember(gone)
            with suppress(OSError):  # a full disk: it is told again to the next daemon, which knows
                self._add({"kind": "forget", "runs": gone})
        self.flush()
        if self._file.end > self._anew_at or (not self.runs and self._file.end > LARGEST // 16):
            with suppress(OSError):
                self._write_anew()
            self._anew_at = max(LARGEST, 2 * self._file.end)

    def probe(self) -> None:
        """Raise OSError when another run cannot be written."""
        self._make_room(ROOM_OF_A_RUN, 1)
        self._file.append_whole(line_of({"kind": "probe"}))

    def settle(self) -> None:
        """Have no doubt any more: the daemon has settled all that earlier ones left open."""
        if self.doubt is not None:
            self.doubt = None
            with suppress(OSError):  # the doubt stays for who reads it
                self._add({"kind": "settled"})
            self.flush()

    def flush(self) -> None:
        """Hand over to the kernel what it takes, now: it survives us then."""
        if self._file.is_sound:
            with suppress(OSError):  # it is kept, and what was written of a line is not written twice
                self._write()

    def _drop(self, run_id: str) -> bool:
        known = self.runs.pop(run_id, None)
        if known is None:
            return False
        self._open_runs -= "end" not in known
        return True

    def _remember(self, run_ids: Iterable[str]) -> None:
        self._forgotten.extend(run_ids)
        while len(self._forgotten) > REMEMBERED:
            self.forgotten_to = max(self.forgotten_to, self._forgotten.popleft())

    # What is written

    def _add(self, record: JournalRecord) -> None:
        """Write what takes no room from the runs. Raise OSError: it is left out."""
        line = line_of(record)
        self._make_room(len(line), 0)
        self._pending += line

    def _write(self) -> None:
        if not self._file.is_sound:
            self._write_anew()
        while self._pending:
            self._pending = self._pending[self._file.append(self._pending) :]

    def _make_room(self, size: int, runs: int) -> None:
        """Have room for `size` bytes, and for what will be noted of the open runs and of `runs` more. Raise OSError."""
        size += (self._open_runs + runs) * ROOM_OF_A_RUN
        if self._file.end + len(self._pending) + size <= self._file.room:
            return
        try:
            self._file.reserve(self._file.end + len(self._pending) + size)
        except OSError:
            self._write_anew(size)

    def _write_anew(self, more: int = 0) -> None:
        """Write a journal of what is still of use, with room for `more` bytes. Raise OSError: the old one stays."""
        data = b"".join(map(line_of, [*self._head(), *self._body()]))
        self._file.replace(data, len(data) + max(more, self._open_runs * ROOM_OF_A_RUN))
        self._pending, self._is_unsynced = b"", not self._file.is_name_durable

    def _head(self) -> Iterable[JournalRecord]:
        if self.doubt is not None:  # first: without it, the others would be a proof
            yield {"kind": "doubt", "why": self.doubt}
        yield {"kind": "boot", "id": self._boot, "format": FORMAT}
        if self.forgotten_to:
            yield {"kind": "forgotten", "to": self.forgotten_to}
        if self._forgotten:
            yield {"kind": "forget", "runs": list(self._forgotten)}

    def _body(self) -> Iterable[JournalRecord]:
        for run_id, known in self.runs.items():
            for kind in KINDS:
                if kind in known:
                    yield {"kind": kind, "run": run_id, **known[kind]}

    # What an earlier keeper wrote

    def _read(self) -> bytes | None:
        """Take what can be used of the journal, and return all of it, None when it cannot be read.

        What cannot be used is kept aside, and is a reason for doubt.
        """
        try:
            content = content_of(self._path)
        except FileNotFoundError:
            self._doubt("there was no journal")
            return b""
        except OSError as error:
            self._keep_aside(f"cannot be read: {error.strerror}", is_moved=True)
            return None
        bad = 0
        for line in content.split(b"\n")[:-1]:  # the last one is nothing, or was cut short: nothing was done about it
            try:
                self._take(record_of(line.strip(b"\0")))
            except ValueError:
                bad += 1
        if bad:
            self._keep_aside(f"has {bad} damaged lines", is_moved=False)
        elif self._format is None:
            self._doubt("the journal was of an earlier version")
        elif self.boot_before != self._boot:
            self._doubt("the host was started anew")
        return content

    def _doubt(self, why: str) -> None:
        self.doubt = f"{why} (at {self._now:%Y-%m-%dT%H:%M:%S.%fZ})"  # with the time: each is another one

    def _take(self, record: JournalRecord) -> None:
        kind = record.pop("kind", None)
        if kind == "boot":
            self.boot_before, self._format = record["id"], record.get("format")
        elif kind == "doubt":
            self.doubt = record["why"]
        elif kind == "settled":
            self.doubt = None
        elif kind == "forgotten":
            self.forgotten_to = max(self.forgotten_to, record["to"])
        elif kind in ("forget", "withdrawn"):
            for run_id in record["runs"]:
                self.runs.pop(run_id, None)
            self._remember(record["runs"] if kind == "forget" else ())
        elif kind in KINDS:
            self.runs.setdefault(record.pop("run"), {})[kind] = record

    def _keep_aside(self, why: str, is_moved: bool) -> None:
        """Keep a journal under another name, too, or (`is_moved`) under another name only."""
        self._doubt(f"the journal {why}")
        aside = free_name(self._path, "damaged", self._now)
        try:
            (os.rename if is_moved else os.link)(self._path, aside)
        except OSError as error:
            aside = f"which failed: {error.strerror}"
        self.troubles.append(f"the keeper's journal {self._path} {why}; it is kept as {aside}")


def reason_of(error: OSError) -> str:
    """Return why a journal cannot be written, in words."""
    return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
