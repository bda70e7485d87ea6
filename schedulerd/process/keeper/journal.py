"""The journal of the keeper: intents, starts and ends of its runs. It outlives the keeper.

One JSON object a line (`records.py`). An intent is written to the kernel before its child is started, with disk space
reserved for everything that will be noted of the run; otherwise the child is not started. So the intent survives the
keeper, and when the host goes down the child goes down as well. The process id is noted after the start. An end is on the
disk (fdatasync) before it is reported. Ends that the daemon has recorded are forgotten. Whoever reads the journal after the
keeper was killed or the host went down knows which runs are running, which have ended and how, and which never started.

The last is a proof by absence. `doubt` is the reason why it does not hold, because an entry may have been lost; it lasts
until the daemon has settled the runs that earlier daemons left open. A forgotten run is absent, too, so the most recently
forgotten run_ids are kept.
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

LARGEST = 4 * 1024 * 1024  # bytes; a longer journal is rewritten with the entries that are still needed
ROOM_OF_A_RUN = 512  # bytes, for its start and its end
REMEMBERED = 512  # most recently forgotten runs that are kept
FORMAT = 2  # since this format no child is started without an intent


class KeeperJournal:
    """The journal at `path`. `runs` maps each run_id to its `intent`, `start` and `end`, as far as they are known."""

    def __init__(self, path: str, boot: str, now: datetime) -> None:
        self._path = path
        self._boot = boot
        self._now = now
        self.boot_before: str | None = None  # the boot_id under which the entries were written
        self.runs: dict[str, dict[str, Any]] = {}
        self.doubt: str | None = None  # why a run without an entry may have been started
        self.troubles: list[str] = []  # found while reading, for the operator
        self.forgotten_to = ""  # the largest run_id of forgotten runs that are not kept any more (run_ids sort by time)
        self._forgotten: deque[str] = deque()
        self._format: int | None = None
        self._pending = b""
        self._is_unsynced = False
        content = self._read()
        self._open_runs = sum("end" not in known for known in self.runs.values())
        self._file = ReservedFile(path)
        self._rewrite_at = LARGEST
        try:
            self._rewrite()
        except OSError:  # the disk is full: continue the old file, whose lines name their boot
            with suppress(OSError):
                if content is not None:
                    self._file.continue_old(content)
            self._pending = b"".join(map(line_of, self._head()))

    # Entries

    @property
    def is_behind(self) -> bool:
        """Whether an entry is neither on the disk nor recorded by a daemon."""
        return bool(self.runs) and (bool(self._pending) or self._is_unsynced or not self._file.is_sound)

    @property
    def forgotten(self) -> list[str]:
        """The most recently forgotten runs."""
        return list(self._forgotten)

    def intend(self, intents: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the intents of runs, before any of them is started. Raise OSError: then none is in the journal."""
        lines = b"".join(line_of({"kind": "intent", "run": run_id, **values}) for run_id, values in intents.items())
        self._write()
        self._make_room(len(lines), len(intents))
        self._file.append_whole(lines)
        for run_id, values in intents.items():
            self.runs[run_id] = {"intent": dict(values)}
        self._open_runs += len(intents)

    def note(self, kind: str, run_id: str, values: Mapping[str, Any]) -> None:
        """Add an entry, to be written with the next `flush` or `sync`."""
        known = self.runs.setdefault(run_id, {})
        if kind == "end" and "end" not in known:
            self._open_runs -= 1
            self._is_unsynced = True
        known[kind] = dict(values)
        self._pending += line_of({"kind": kind, "run": run_id, **values})

    def sync(self) -> None:
        """Write all entries to the disk. Raise OSError when that fails; the next call retries."""
        self._write()
        self._file.sync()
        self._is_unsynced = False

    def withdraw(self, run_id: str) -> None:
        """Drop a run that could not be started; `flush` writes it."""
        if self._drop(run_id):
            with suppress(OSError):  # the disk is full: the next keeper finds no process of it
                self._add({"kind": "withdrawn", "runs": [run_id]})

    def forget(self, run_ids: Iterable[str]) -> None:
        """Drop runs whose ends the daemon has recorded."""
        gone = [run_id for run_id in run_ids if self._drop(run_id)]
        if gone:
            self._remember(gone)
            with suppress(OSError):  # the disk is full: the ends are reported again to the next daemon, which has them
                self._add({"kind": "forget", "runs": gone})
        self.flush()
        if self._file.end > self._rewrite_at or (not self.runs and self._file.end > LARGEST // 16):
            with suppress(OSError):
                self._rewrite()
            self._rewrite_at = max(LARGEST, 2 * self._file.end)

    def probe(self) -> None:
        """Raise OSError when no further run could be written."""
        self._make_room(ROOM_OF_A_RUN, 1)
        self._file.append_whole(line_of({"kind": "probe"}))

    def settle(self) -> None:
        """End the doubt: the daemon has settled the runs that earlier daemons left open."""
        if self.doubt is not None:
            self.doubt = None
            with suppress(OSError):  # the doubt stays in the file
                self._add({"kind": "settled"})
            self.flush()

    def flush(self) -> None:
        """Write entries to the kernel, as far as it accepts them: they survive the keeper then."""
        if self._file.is_sound:
            with suppress(OSError):  # entries are kept, and a line that was written partly is continued
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

    # The file

    def _add(self, record: JournalRecord) -> None:
        """Add a record that must not use the space reserved for runs. Raise OSError: it is left out."""
        line = line_of(record)
        self._make_room(len(line), 0)
        self._pending += line

    def _write(self) -> None:
        if not self._file.is_sound:
            self._rewrite()
        while self._pending:
            self._pending = self._pending[self._file.append(self._pending) :]

    def _make_room(self, size: int, runs: int) -> None:
        """Reserve space for `size` bytes and for the entries of the open runs and of `runs` more. Raise OSError."""
        size += (self._open_runs + runs) * ROOM_OF_A_RUN
        if self._file.end + len(self._pending) + size <= self._file.room:
            return
        try:
            self._file.reserve(self._file.end + len(self._pending) + size)
        except OSError:
            self._rewrite(size)

    def _rewrite(self, more: int = 0) -> None:
        """Replace the journal by the entries that are still needed, with space for `more` bytes. Raise OSError: it stays."""
        data = b"".join(map(line_of, [*self._head(), *self._body()]))
        self._file.replace(data, len(data) + max(more, self._open_runs * ROOM_OF_A_RUN))
        self._pending, self._is_unsynced = b"", not self._file.is_name_durable

    def _head(self) -> Iterable[JournalRecord]:
        if self.doubt is not None:  # first: without it, the rest would be a proof
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

    # The journal of an earlier keeper

    def _read(self) -> bytes | None:
        """Read the valid entries; return the whole content, None when it cannot be read.

        An invalid journal is kept under another name, and is a reason for doubt.
        """
        try:
            content = content_of(self._path)
        except FileNotFoundError:
            self._set_doubt("there was no journal")
            return b""
        except OSError as error:
            self._keep_aside(f"cannot be read: {error.strerror}", is_moved=True)
            return None
        bad = 0
        for line in content.split(b"\n")[:-1]:  # the last one is empty, or was cut short before it took effect
            try:
                self._apply(record_of(line.strip(b"\0")))
            except ValueError:
                bad += 1
        if bad:
            self._keep_aside(f"has {bad} damaged lines", is_moved=False)
        elif self._format is None:
            self._set_doubt("the journal was of an earlier version")
        elif self.boot_before != self._boot:
            self._set_doubt("the host was restarted")
        return content

    def _set_doubt(self, why: str) -> None:
        self.doubt = f"{why} (at {self._now:%Y-%m-%dT%H:%M:%S.%fZ})"  # with the time, so that each doubt is a different one

    def _apply(self, record: JournalRecord) -> None:
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
        """Keep a journal under another name: link it, or (`is_moved`) rename it."""
        self._set_doubt(f"the journal {why}")
        aside = free_name(self._path, "damaged", self._now)
        try:
            (os.rename if is_moved else os.link)(self._path, aside)
        except OSError as error:
            aside = f"(failed: {error.strerror})"
        self.troubles.append(f"the keeper's journal {self._path} {why}; it is kept as {aside}")


def reason_of(error: OSError) -> str:
    """Return why a journal cannot be written, in words for the operator."""
    return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
