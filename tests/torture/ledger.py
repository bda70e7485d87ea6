"""The rows of the history, read from the database and not through schedulerd."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

COLUMNS = "run_id, job_id, {at}, attempt, origin, status, {queued}, exit_code, error_message, details"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the ledger. Times are seconds since 1970 UTC."""

    run_id: str
    job_id: str
    at: float | None
    attempt: int
    origin: str
    status: str
    queued_at: float
    exit_code: int | None
    message: str
    details: dict[str, Any]

    @property
    def gap(self) -> tuple[float, float] | None:
        """Return the first and last occurrence that it stands for, when it stands for several."""
        if "first" not in self.details:
            return None
        return _instant(self.details["first"]), _instant(self.details["last"])


def read_sqlite(path: Path) -> list[Row]:
    """Read a history in a file, also beside a daemon."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
    try:
        columns = COLUMNS.format(at="scheduled_at / 1e6", queued="queued_at / 1e6")
        return _rows(connection.execute(f"SELECT {columns} FROM runs"))
    finally:
        connection.close()


def read_postgres(url: str, schema: str) -> list[Row]:
    """Read a history in a schema of a PostgreSQL."""
    epoch = "extract(epoch FROM {0})::float8"
    columns = COLUMNS.format(at=epoch.format("scheduled_at"), queued=epoch.format("queued_at"))
    with psycopg.connect(url, connect_timeout=5) as connection:
        return _rows(connection.execute(f"SELECT {columns} FROM {schema}.runs"))


def _rows(found: Iterable[Any]) -> list[Row]:
    return [Row(*each[:8], each[8] or "", _details(each[9])) for each in found]


def _details(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else json.loads(found or "{}")


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
