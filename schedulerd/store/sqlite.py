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

from ..errors import StoreError
from ..model import Backup, JobRecord, Origin, Pause, Run, Status, from_micros, to_micros
from . import Ended
from .queries import load_queries
from .sqlite_writing import BUSY_SECONDS, SqliteDatabase
from .writes import Writes

MOST_READERS = 4


class SqliteStore(Writes):
    """A `Store` in one SQLite file, which is made, mode 0600, when it is not there."""

    def __init__(self, path: str) -> None:
        """Open, and migrate to this program's schema. Raise StoreError when that cannot be."""
        self.path = path
        self._sql = load_queries("sqlite")
        self._is_closed = False
        self._readers: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        for _ in range(MOST_READERS):
            self._readers.put(None)
        super().__init__(SqliteDatabase(path))

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

    def last_successes(self, job_ids: Sequence[str]) -> dict[str, Run]:
        """Return each job's newest success."""
        return {row["job_id"]: _to_run(row) for row in self._rows("last_successes", (_json_list(job_ids),))}

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
        return [_to_run(row) for row in self._rows("recent", values)]

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
        return {row["status"]: row["number"] for row in self._rows("counts", (_first_run_id(since),))}

    def lateness(self, since: datetime) -> list[float]:
        """Return lateness in seconds."""
        return [seconds for (seconds,) in self._rows("lateness_since", (_first_run_id(since),))]

    def ended_between(self, start: datetime, end: datetime) -> Iterator[Ended]:
        """Yield the rows that ended in [start, end)."""
        with self._reader() as connection:
            for row in connection.execute(self._sql["finished_between"], (to_micros(start), to_micros(end))):
                job_id, status, duration, scheduled, started, records = row
                late = (started - scheduled) / 1e6 if scheduled is not None and started is not None else None
                yield Ended(job_id, status, duration, late, records)

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


def _first_run_id(since: datetime | None) -> str:
    """Return a text that sorts before every run_id made at or after `since` (their first 48 bits are milliseconds)."""
    if since is None:
        return ""
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
