"""The store in a SQLite file: WAL, `synchronous=FULL`, one connection that writes and checkpoints, readers that only read.

Readers open the file read-only, so two connections never checkpoint at once (SQLite before 3.51.3 can damage a database
then).
"""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from typing import Any
from urllib.parse import quote

from ...core.clock import Clock, SystemClock
from ...core.errors import StoreError
from ...core.models import from_micros, to_micros
from ..connection_pool import ConnectionPool
from ..outage_spool import OutageSpool
from ..queries import load_queries
from ..reader import StoreReader
from ..writer import StoreWriter
from . import damage
from .apply import SqliteDatabase
from .files import orphan_advice, orphaned_logs
from .open import BUSY_SECONDS

MOST_READERS = 4


class SqliteStore(StoreReader, StoreWriter):
    """A `Store` in one SQLite file, which is created with mode 0600 if it does not exist."""

    def __init__(
        self,
        path: str,
        clock: Clock | None = None,
        is_own: bool = False,
        spool: OutageSpool | None = None,
        opens: bool = True,
    ) -> None:
        """Open the store unless `opens` is False; see `open_history` for `is_own`, and `StoreWriter.open`."""
        self.path = path
        self._sql = load_queries("sqlite")
        self._readers = ConnectionPool(self._connect, MOST_READERS)
        super().__init__(SqliteDatabase(path, clock or SystemClock(), is_own), spool)
        if opens:
            self.open()

    @property
    def alarm(self) -> str | None:
        """Return what an operator must do about damage, the outage journal and orphaned write-ahead logs, or None."""
        found = [damage.damage_advice(aside) for aside in damage.damaged_copies(self.path)[-1:]]
        if damage.is_suspect(self.path):
            found = [f"the history {self.path} is damaged: restart schedulerd, which checks all of it and sets it aside"]
        found += [orphan_advice(self.path, left) for left in orphaned_logs(self.path)[-1:]]
        return "; ".join([*found, *filter(None, [super().alarm])]) or None

    def close(self) -> None:
        """Write what is waiting, and close, after the current reads have ended."""
        self._end_thread()
        self._readers.close()
        self._database.close()  # last: that merges the write-ahead log into the file and deletes it

    def _connect(self) -> sqlite3.Connection:
        uri = f"file:{quote(self.path)}?mode=ro"
        connection = sqlite3.connect(uri, timeout=BUSY_SECONDS, uri=True, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        return connection

    def _rows(self, name: str, **values: Any) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        try:
            with self._readers.lend() as connection:
                return connection.execute(self._sql[name], {key: _bound(value) for key, value in values.items()}).fetchall()
        except sqlite3.Error as error:
            if damage.is_damage(error):
                damage.mark_suspect(self.path)
            raise StoreError(f"the history cannot be read: {error}") from error

    @staticmethod
    def _instant(value: Any) -> datetime:
        return from_micros(value)


def _bound(value: Any) -> Any:
    """Return a value as a query parameter: instants as microseconds, lists as JSON."""
    if isinstance(value, datetime):
        return to_micros(value)
    return value if value is None or isinstance(value, str | int | float) else json.dumps([str(one) for one in value])
