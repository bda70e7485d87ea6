"""The store in a schema of a PostgreSQL database: one connection writes, a few read; each read is one round trip."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from ...core.clock import Clock, SystemClock
from ...core.errors import StoreAwayError
from ...core.models import Secret
from ...host.identity import Owner
from ..connection_pool import ConnectionPool
from ..outage_spool import OutageSpool
from ..queries import load_queries
from ..reader import StoreReader
from ..writer import StoreWriter
from .apply import PostgresDatabase
from .connection import Access, Connection, Deadlines, TimeLimitError, format_error
from .statements import storable

MOST_READERS = 4
WAIT_SECONDS = 10.0  # for a free connection
STATEMENT_SECONDS = 10.0
READ_SECONDS = 15.0
LAST_SECONDS = 5.0  # limit of each wait while the store is closed, when there is an outage journal


class PostgresStore(StoreReader, StoreWriter):
    """A `Store` in a schema of a PostgreSQL database, which is created if it does not exist and the role may do so."""

    def __init__(
        self, url: str | Secret, schema: str = "schedulerd", clock: Clock | None = None, spool: OutageSpool | None = None,
        opens: bool = True, owner: Owner | None = None,
    ) -> None:  # fmt: skip
        """Open the store unless `opens` is False; see `StoreWriter.open`. Without `owner`, its owner is not checked."""
        clock = clock or SystemClock()
        self._access = Access(url, schema, clock)
        self._sql = load_queries("postgres")
        self._settings = self._access.begin(STATEMENT_SECONDS, STATEMENT_SECONDS)
        self._deadlines = Deadlines(clock)
        self._has_journal = spool is not None
        self._readers = ConnectionPool(self._connect, MOST_READERS)
        super().__init__(PostgresDatabase(self._access, self._deadlines, owner), spool)
        if opens:
            self.open()

    def close(self) -> None:
        """Write what is waiting, and close, after the current reads have ended.

        With an outage journal, waits are short: changes that the server does not accept soon stay there for the next start.
        """
        if self._has_journal:
            self._deadlines.hurry(LAST_SECONDS)
        super().close()
        self._readers.close()
        self._database.close()
        self._deadlines.close()

    def _connect(self) -> Connection:
        connection = self._access.reconnect_or_fail()
        connection.cursor_factory = psycopg.ClientCursor
        connection.row_factory = dict_row
        return connection

    def _rows(self, name: str, **values: Any) -> list[dict[str, Any]]:
        """Return the rows of a query. A connection that was closed since its last use is replaced once."""
        for is_last in (False, True):
            with self._readers.lend(WAIT_SECONDS) as connection:
                try:
                    with self._deadlines.bound(connection, READ_SECONDS):
                        return self._query(connection, name, values)
                except psycopg.Error as error:
                    if is_last or not connection.closed or isinstance(error, TimeLimitError):
                        raise StoreAwayError(f"the history cannot be read: {format_error(error)}") from error
        raise AssertionError("unreachable")

    def _query(self, connection: Connection, name: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Send settings and query as one message, which PostgreSQL executes as one transaction."""
        bound = {key: _bound(value) for key, value in values.items()}
        cursor = connection.execute(self._settings + self._sql[name], bound)
        while cursor.nextset():
            pass
        return cursor.fetchall()

    @staticmethod
    def _instant(value: Any) -> datetime:
        return value  # type: ignore[no-any-return]


def _bound(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | datetime):
        return storable(value)
    return [storable(str(one)) for one in value]
