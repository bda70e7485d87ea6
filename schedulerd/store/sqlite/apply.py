"""Apply changes to a SQLite file: WAL, `synchronous=FULL`, the one connection that writes and checkpoints."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from ...core.clock import Clock
from ...core.errors import StoreAwayError
from ...core.faults import fault_point
from ...core.models import Run, to_micros
from ..changes import Change, ClaimRun, DeleteRuns, FinishRuns, RecordRuns, SaveDay, SaveJobs, SetPause  # fmt: skip
from ..queries import load_queries
from .damage import is_damage, mark_suspect
from .files import HistoryFiles, files_at, note, set_log_aside
from .open import is_away, is_maybe_committed, open_history


class SqliteDatabase:
    """Applies changes to one SQLite file, which is created with mode 0600 if it does not exist."""

    def __init__(self, path: str, clock: Clock, is_own: bool) -> None:
        """See `open_history` for `is_own`."""
        self._path, self._clock, self._is_own = path, clock, is_own
        self._connection: sqlite3.Connection  # once it is open
        self._files: HistoryFiles  # the files that are open
        self._sql = load_queries("sqlite")
        self._makers: dict[type[Any], Callable[[Any], Any]] = {
            RecordRuns: self._record, ClaimRun: self._claim, FinishRuns: self._finish, SaveJobs: self._save_jobs,
            SetPause: self._set_pause, DeleteRuns: self._delete_runs, SaveDay: self._save_day,
        }  # fmt: skip

    def open(self) -> None:
        """Open and migrate; see `Database.open`."""
        self._connection = open_history(self._path, self._clock, self._is_own)
        self._files = note(self._path)

    def apply(self, changes: Sequence[Change]) -> list[Any]:
        """Apply changes in one transaction; see `Database.apply`."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            results = [self._makers[type(change)](change) for change in changes]
            if not changes:
                self._test_write()
            self._check_files()
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if is_damage(error):
                mark_suspect(self._path)
            if is_away(error) or is_damage(error):
                away = StoreAwayError(f"{self._path}: {error}")
                away.is_unclear = is_maybe_committed(error)
                raise away from error
            raise
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return results

    def _test_write(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        self._connection.execute(f"PRAGMA user_version = {version}")

    def close(self) -> None:
        """Close the connection, if any. SQLite would delete a foreign write-ahead log at the path: set that aside first."""
        if hasattr(self, "_connection"):
            found = files_at(self._path)
            if found.file == self._files.file and found.log != self._files.log:
                set_log_aside(self._path, self._clock.now())
            self._connection.close()

    def _check_files(self) -> None:
        """Raise StoreAwayError when the open files are not at their paths any more: the rows would not be found there.

        No new history is created. Checked before each commit: stat(2) costs nothing beside its fsync(2). The content of a
        removed write-ahead log is written into the database, as long as the connection is open.
        """
        found, way_out = files_at(self._path), "put it back, or restart schedulerd to use the file that is there"
        if found == self._files:
            return
        self._connection.execute("ROLLBACK")
        if found.file == self._files.file:
            self._connection.execute("PRAGMA wal_checkpoint").fetchall()
            what, way_out = "its write-ahead log was removed", "its content is saved: restart schedulerd"
        elif found.file is None:
            what = "its file was removed or renamed"
        else:
            what = "it was replaced by another file"
        raise StoreAwayError(f"{self._path}: {what} while schedulerd used it: {way_out}")

    def _record(self, change: RecordRuns) -> frozenset[str]:
        return self._enter(change.runs)

    def _enter(self, runs: Sequence[Run]) -> frozenset[str]:
        """Enter rows; return the run_ids that are in the ledger afterwards."""
        rows = [_to_row(run) for run in runs]
        number = self._connection.executemany(self._sql["record_run"], rows).rowcount if rows else 0
        fault_point("in_claim")
        ids = frozenset(run.run_id for run in runs)
        if number == len(rows):
            return ids
        is_there = self._sql["run_is_there"]
        return frozenset(one for one in ids if self._connection.execute(is_there, (one,)).fetchone())

    def _claim(self, change: ClaimRun) -> bool:
        return self._connection.execute(self._sql["claim_queued"], (change.run_id,)).rowcount == 1

    def _finish(self, change: FinishRuns) -> frozenset[str]:
        rows = [
            (run.status, _micros(run.started_at), _micros(run.finished_at), run.duration_seconds, run.exit_code,
             run.records_processed, run.error_message, _json(run.details), run.run_id)
            for run in change.runs
        ]  # fmt: skip
        if self._many("finish_run", rows) < len(rows):
            self._enter(change.runs)  # rows that exist are not changed
        fault_point("in_result")
        return self._enter(change.then)

    def _save_jobs(self, change: SaveJobs) -> None:
        self._many("save_job", [(one.job_id, one.rule, to_micros(one.planned_since)) for one in change.records])

    def _set_pause(self, change: SetPause) -> None:
        pause = change.pause
        row: tuple[Any, ...] = (None, None, None, None)
        if pause is not None:
            row = (to_micros(pause.paused_at), pause.actor, pause.reason, _micros(pause.until))
        self._many("set_pause", [(*row, change.job_id)])

    def _delete_runs(self, change: DeleteRuns) -> list[str]:
        sql = self._sql["delete_run"]
        return [run_id for run_id in change.run_ids if self._connection.execute(sql, (run_id,)).rowcount]

    def _save_day(self, change: SaveDay) -> None:
        rows = [
            (change.day, one.job_id, _json(one.runs), one.records_processed, one.duration_p50, one.duration_p95,
             one.lateness_p50, one.lateness_p99, one.duration_max, one.lateness_p95, one.output_bytes,
             one.timezone)
            for one in change.jobs
        ]  # fmt: skip
        self._many("clear_day", [(change.day,)])
        self._many("save_day", rows)

    def _many(self, name: str, rows: Sequence[tuple[Any, ...]]) -> int:
        """Execute a statement for each row; return how many rows of the table were changed."""
        return self._connection.executemany(self._sql[name], rows).rowcount if rows else 0


def _micros(instant: datetime | None) -> int | None:
    return None if instant is None else to_micros(instant)


def _json(value: Any) -> str | None:
    return json.dumps(value, separators=(",", ":"), default=str) if value else None


def _to_row(run: Run) -> tuple[Any, ...]:
    return (
        run.run_id, run.job_id, _micros(run.scheduled_at), run.attempt, run.origin, run.status, to_micros(run.queued_at),
        _micros(run.started_at), _micros(run.finished_at), run.duration_seconds, run.exit_code, run.records_processed,
        run.error_message, _json(run.details), run.node, run.actor, run.idempotency_key, run.sequence or 0,
    )  # fmt: skip
