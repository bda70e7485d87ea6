"""The store in a SQLite file: WAL, `synchronous=FULL`, one connection that writes and checkpoints, readers that only read.

Readers open the file read-only, so that never two connections checkpoint at once (SQLite before 3.51.3 can damage a
database then).
"""

from __future__ import annotations

import json
import os
import queue
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from ..errors import StoreError
from ..faults import fault_point
from ..model import Backup, JobRecord, Origin, Pause, Run, Status, from_micros, to_micros
from . import FOLLOWED_KEPT, DayOfJob, Ended
from .queries import load_migrations, load_queries
from .writer import Writer

BUSY_SECONDS = 10.0
MOST_READERS = 4


class SqliteStore:
    """A `Store` in one SQLite file, which is made, mode 0600, when it is not there."""

    def __init__(self, path: str) -> None:
        """Open, and migrate to this program's schema. Raise StoreError when that cannot be."""
        self.path = path
        self._sql = load_queries("sqlite")
        self._is_closed = False
        self._readers: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        for _ in range(MOST_READERS):
            self._readers.put(None)
        try:
            self._writer = Writer(self._connect)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path} cannot be used as the history database: {error}") from error
        self._writer.start()

    @property
    def trouble(self) -> str | None:
        """Return why writes are waiting, or None."""
        return self._writer.trouble

    @property
    def commits(self) -> int:
        """Return how many transactions were committed since the start."""
        return self._writer.commits

    def _connect(self) -> sqlite3.Connection:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=1000", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")
            _migrate(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

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

    # Writes

    def record(self, runs: Sequence[Run]) -> Future[frozenset[str]]:
        """Enter rows into the ledger; see `Store.record`."""
        return self._writer.submit(self._entry(runs))

    def _entry(self, runs: Sequence[Run]) -> Callable[[sqlite3.Connection], frozenset[str]]:
        """Return the change that enters rows, and says which are in the ledger after it."""
        rows = [_to_row(run) for run in runs]
        ids = frozenset(run.run_id for run in runs)
        insert, is_there = self._sql["record_run"], self._sql["run_is_there"]

        def change(connection: sqlite3.Connection) -> frozenset[str]:
            number = connection.executemany(insert, rows).rowcount if rows else 0
            fault_point("in_claim")
            if number == len(rows):
                return ids
            return frozenset(one for one in ids if connection.execute(is_there, (one,)).fetchone())

        return change

    def claim(self, run_id: str) -> Future[bool]:
        """Take a queued run; see `Store.claim`."""
        sql = self._sql["claim_queued"]
        return self._writer.submit(lambda connection: connection.execute(sql, (run_id,)).rowcount == 1)

    def finish(self, runs: Sequence[Run], then: Sequence[Run] = ()) -> Future[frozenset[str]]:
        """Write how runs ended; see `Store.finish`."""
        rows = [
            (run.status, _micros(run.started_at), _micros(run.finished_at), run.duration_seconds, run.exit_code,
             run.records_processed, run.error_message, _json(run.details), run.run_id)
            for run in runs
        ]  # fmt: skip
        sql, enter = self._sql["finish_run"], self._entry(then)

        def change(connection: sqlite3.Connection) -> frozenset[str]:
            connection.executemany(sql, rows)
            fault_point("in_result")
            return enter(connection)

        return self._writer.submit(change)

    def save_jobs(self, records: Sequence[JobRecord]) -> Future[None]:
        """Remember rules; see `Store.save_jobs`."""
        return self._many("save_job", [(one.job_id, one.rule, to_micros(one.planned_since)) for one in records])

    def set_pause(self, job_id: str, pause: Pause | None) -> Future[None]:
        """Pause or resume; see `Store.set_pause`."""
        row: tuple[Any, ...] = (None, None, None, None)
        if pause is not None:
            row = (to_micros(pause.paused_at), pause.actor, pause.reason, _micros(pause.until))
        return self._many("set_pause", [(*row, job_id)])

    def delete_expired(self, before: datetime, limit: int) -> Future[list[str]]:
        """Delete old rows; see `Store.delete_expired`."""

        def change(connection: sqlite3.Connection) -> list[str]:
            bounds = (to_micros(before), limit, to_micros(before - FOLLOWED_KEPT))
            found = connection.execute(self._sql["expired_runs"], bounds).fetchall()
            connection.executemany(self._sql["delete_run"], found)
            return [run_id for (run_id,) in found]

        return self._writer.submit(change)

    def add_backup(self, backup: Backup) -> Future[None]:
        """Enter a backup; see `Store.add_backup`."""
        row = (
            backup.path, backup.filename, backup.size_bytes, backup.sha256, to_micros(backup.created_at),
            backup.job_id, backup.run_id,
        )  # fmt: skip
        return self._many("add_backup", [row])

    def remove_backup(self, path: str) -> Future[None]:
        """Take out a backup; see `Store.remove_backup`."""
        return self._many("remove_backup", [(path,)])

    def save_day(self, day: str, jobs: Sequence[DayOfJob]) -> Future[None]:
        """Replace a day; see `Store.save_day`."""
        rows = [
            (day, one.job_id, _json(one.runs), one.records_processed, one.duration_p50, one.duration_p95,
             one.lateness_p50, one.lateness_p99)
            for one in jobs
        ]  # fmt: skip

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(self._sql["clear_day"], (day,))
            connection.executemany(self._sql["save_day"], rows)

        return self._writer.submit(change)

    def _many(self, name: str, rows: Sequence[tuple[Any, ...]]) -> Future[None]:
        sql = self._sql[name]

        def change(connection: sqlite3.Connection) -> None:
            connection.executemany(sql, rows)

        return self._writer.submit(change)

    # Reads

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


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the schema up to date, each step in a transaction of its own; `user_version` is the last step taken."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    migrations = load_migrations("sqlite")
    newest = migrations[-1][0]
    if version > newest:
        raise StoreError(f"{path} was written by a newer schedulerd (schema {version}, this one knows {newest}): upgrade")
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreError(f"{path} is the database of another program: name another file in store:")
    for number, _name, script in migrations:
        if number > version:
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")


def _uri_quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _first_run_id(since: datetime | None) -> str:
    """Return a text that sorts before every run_id made at or after `since` (their first 48 bits are milliseconds)."""
    if since is None:
        return ""
    digits = f"{to_micros(since) // 1000:012x}"
    return f"{digits[:8]}-{digits[8:]}"


def _micros(instant: datetime | None) -> int | None:
    return None if instant is None else to_micros(instant)


def _instant(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


def _json_list(words: Sequence[str] | None) -> str | None:
    return None if words is None else json.dumps([str(word) for word in words])


def _json(value: Any) -> str | None:
    return json.dumps(value, separators=(",", ":"), default=str) if value else None


def _to_row(run: Run) -> tuple[Any, ...]:
    return (
        run.run_id, run.job_id, _micros(run.scheduled_at), run.attempt, run.origin, run.status, to_micros(run.queued_at),
        _micros(run.started_at), _micros(run.finished_at), run.duration_seconds, run.exit_code, run.records_processed,
        run.error_message, _json(run.details), run.node, run.actor, run.idempotency_key,
    )  # fmt: skip


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
