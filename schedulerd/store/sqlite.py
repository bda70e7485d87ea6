"""The store in a SQLite file: WAL, `synchronous=FULL`, one connection that writes and checkpoints, readers that only read.

Readers open the file read-only, so that never two connections checkpoint at once (SQLite before 3.51.3 can damage a
database then).
"""

from __future__ import annotations

import json
import queue
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from ..clock import Clock, SystemClock
from ..errors import StoreError
from ..model import Backup, JobRecord, Origin, Pause, Run, Status, from_micros, to_micros
from ..retention import Needed, Old
from . import Ended, damage
from .queries import load_queries
from .spool import Spool
from .sqlite_opening import BUSY_SECONDS
from .sqlite_writing import SqliteDatabase
from .writes import Writes

MOST_READERS = 4
PAGE = 1000  # rows that are read at once of what is read in pages


class SqliteStore(Writes):
    """A `Store` in one SQLite file, which is made, mode 0600, when it is not there."""

    def __init__(
        self, path: str, clock: Clock | None = None, is_own: bool = False, spool: Spool | None = None, opens: bool = True
    ) -> None:
        """Open, unless that is left to the caller; see `open_history` for `is_own`, and `Writes.open`."""
        self.path = path
        self._sql = load_queries("sqlite")
        self._is_closed = False
        self._readers: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        for _ in range(MOST_READERS):
            self._readers.put(None)
        super().__init__(SqliteDatabase(path, clock or SystemClock(), is_own), spool)
        if opens:
            self.open()

    @property
    def alarm(self) -> str | None:
        """Return what somebody has to see to: damage."""
        if damage.is_suspect(self.path):
            return f"the history {self.path} is damaged: at the next start it is looked through, and set aside"
        aside = damage.those_set_aside(self.path)
        return damage.way_out(aside[-1]) if aside else None

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """Lend a read-only connection; at most MOST_READERS are open."""
        connection = self._readers.get()
        try:
            if self._is_closed:
                raise StoreError("the store is closed")
            if connection is None:
                uri = f"file:{_uri_quoted(self.path)}?mode=ro"
                connection = sqlite3.connect(
                    uri, timeout=BUSY_SECONDS, uri=True, isolation_level=None, check_same_thread=False
                )
                connection.row_factory = sqlite3.Row
            yield connection
        except sqlite3.Error as error:
            if damage.is_damage(error):
                damage.mark_suspect(self.path)
            raise StoreError(f"the history cannot be read: {error}") from error
        finally:
            self._readers.put(connection)

    def _rows(self, name: str, values: Any = ()) -> list[sqlite3.Row]:
        with self._reader() as connection:
            return connection.execute(self._sql[name], values).fetchall()

    def jobs(self) -> dict[str, JobRecord]:
        """Return every job that was ever planned."""
        return {row["job_id"]: _to_record(row) for row in self._rows("jobs")}

    def last_occurrences(self, job_ids: Sequence[str]) -> dict[str, datetime]:
        """Return each job's newest occurrence."""
        out = {}
        with self._reader() as connection:
            for job_id in job_ids:
                newest = connection.execute(self._sql["last_occurrence"], (job_id,)).fetchone()
                if newest is not None:
                    out[job_id] = from_micros(newest[0])
        return out

    def last_results(self, job_ids: Sequence[str]) -> dict[str, Run]:
        """Return each job's newest ended run."""
        out = {}
        with self._reader() as connection:
            for job_id in job_ids:
                row = connection.execute(self._sql["last_result"], (job_id,)).fetchone()
                if row is not None:
                    out[job_id] = _to_run(row)
        return out

    def unfinished(self) -> list[Run]:
        """Return what is queued or running."""
        return [_to_run(row) for row in self._rows("unfinished")]

    def history(
        self, job_id: str, limit: int, before: str | None = None, statuses: Sequence[str] | None = None
    ) -> list[Run]:
        """Return a page of a job's rows, newest first."""
        values = {"job_id": job_id, "limit": limit, "before": before or "~", "statuses": _json_list(statuses)}
        return [_to_run(row) for row in self._rows("history", values)]

    def recent(self, limit: int, before: str | None = None, statuses: Sequence[str] | None = None) -> list[Run]:
        """Return a page of the rows of all jobs, newest first."""
        values = {"limit": limit, "before": before or "~", "statuses": _json_list(statuses)}
        is_notable = statuses is not None and Status.SUCCESS not in statuses
        return [_to_run(row) for row in self._rows("recent_notable" if is_notable else "recent", values)]

    def occurrences(self, job_id: str, since: datetime, limit: int) -> list[Run]:
        """Return rows of occurrences, in their order."""
        return [_to_run(row) for row in self._rows("occurrences", (job_id, to_micros(since), limit))]

    def followed(self, job_id: str, since: datetime) -> set[datetime]:
        """Return the ends that a job was due after."""
        return {from_micros(at) for (at,) in self._rows("followed", (job_id, to_micros(since)))}

    def durations(self, job_ids: Sequence[str], limit: int) -> dict[str, list[float]]:
        """Return the durations of the newest successful runs."""
        out = {}
        with self._reader() as connection:
            for job_id in job_ids:
                found = connection.execute(self._sql["durations"], (job_id, limit)).fetchall()
                if found:
                    out[job_id] = [seconds for (seconds,) in found]
        return out

    def run(self, run_id: str) -> Run | None:
        """Return a run."""
        return next((_to_run(row) for row in self._rows("run", (run_id,))), None)

    def run_by_key(self, job_id: str, key: str) -> Run | None:
        """Return the run of an idempotency key."""
        return next((_to_run(row) for row in self._rows("run_by_key", (job_id, key))), None)

    def counts(self, since: datetime | None = None) -> dict[str, int]:
        """Return the number of rows by status."""
        if since is None:
            return dict(map(tuple, self._rows("counts")))
        return dict(map(tuple, self._rows("counts_since", {"first": _first_run_id(since)})))

    def lateness(self, since: datetime) -> list[tuple[float, int]]:
        """Return classes of lateness."""
        rows = self._rows("lateness_since", {"first": _first_run_id(since)})
        return [(upto / 1e6, number) for upto, number in rows]

    def ended_between(self, start: datetime, end: datetime) -> Iterator[Ended]:
        """Yield the rows that ended in [start, end)."""
        place = {"finished_at": to_micros(start), "run_id": "", "end": to_micros(end), "limit": PAGE}
        while rows := self._rows("finished_between", place):
            for row in rows:
                started, scheduled = row["started_at"], row["scheduled_at"]
                late = (started - scheduled) / 1e6 if scheduled is not None and started is not None else None
                yield Ended(row["job_id"], row["status"], row["duration_seconds"], late, row["records_processed"])
            place |= {"finished_at": rows[-1]["finished_at"], "run_id": rows[-1]["run_id"]}

    def job_ids(self) -> list[str]:
        """Return every job that has rows."""
        return [job_id for (job_id,) in self._rows("job_ids")]

    def needed(self, job_id: str, runs_per_job: int | None) -> Needed:
        """Return the rows of a job that others need."""
        (row,) = self._rows("needed", {"job_id": job_id, "runs_per_job": runs_per_job})
        return Needed(**dict(row))

    def statuses(self, run_ids: Sequence[str]) -> dict[str, Status]:
        """Return the status of each run that is there."""
        return {run_id: Status(status) for run_id, status in self._rows("statuses", (_json_list(run_ids),))}

    def old_rows(self, job_id: str, after: str, limit: int) -> list[Old]:
        """Return a page of a job's rows, oldest first."""
        return [
            Old(row["run_id"], Status(row["status"]), Origin(row["origin"]), _instant(row["finished_at"]))
            for row in self._rows("old_rows", (job_id, after, limit))
        ]

    def backups(self) -> list[Backup]:
        """Return the catalogue."""
        return [Backup(**{**dict(row), "created_at": from_micros(row["created_at"])}) for row in self._rows("backups")]

    def close(self) -> None:
        """Write what is waiting, and close; waits for reads that are under way."""
        self._writer.close()
        self._is_closed = True
        lent = [self._readers.get() for _ in range(MOST_READERS)]
        for connection in lent:
            if connection is not None:
                connection.close()
            self._readers.put(None)


def _uri_quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _first_run_id(since: datetime) -> str:
    """Return a text that sorts before every run_id made at or after `since` (their first 48 bits are milliseconds)."""
    digits = f"{to_micros(since) // 1000:012x}"
    return f"{digits[:8]}-{digits[8:]}"


def _instant(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


def _json_list(words: Sequence[str] | None) -> str | None:
    return None if words is None else json.dumps([str(word) for word in words])


def _to_run(row: sqlite3.Row) -> Run:
    return Run(
        run_id=row["run_id"], job_id=row["job_id"], origin=Origin(row["origin"]), status=Status(row["status"]),
        queued_at=from_micros(row["queued_at"]), scheduled_at=_instant(row["scheduled_at"]), attempt=row["attempt"],
        started_at=_instant(row["started_at"]), finished_at=_instant(row["finished_at"]),
        duration_seconds=row["duration_seconds"], exit_code=row["exit_code"],
        records_processed=row["records_processed"], error_message=row["error_message"],
        details=json.loads(row["details"]) if row["details"] else {}, node=row["node"], actor=row["actor"],
        idempotency_key=row["idempotency_key"],
    )  # fmt: skip


def _to_record(row: sqlite3.Row) -> JobRecord:
    pause = None
    if row["paused_at"] is not None:
        pause = Pause(from_micros(row["paused_at"]), row["paused_by"], row["pause_reason"], _instant(row["paused_until"]))
    return JobRecord(row["job_id"], row["rule"], from_micros(row["planned_since"]), pause)
