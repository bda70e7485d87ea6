"""The writing side of a PostgreSQL: a group of changes is a few statements and one commit.

When the answer to a COMMIT is lost, the changes are made again on a new connection. Rows and ends are the same then as once;
of claims and deletions it is remembered which were made, because there a repetition would be answered otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from ...core.errors import StoreAwayError, StoreError
from ...host.identity import Owner
from ..changes import Change
from ..queries import load_queries
from .connection import DURABLE, Access, Connection, Deadlines, TimeLimitError, format_error, is_refusal
from .owner import own
from .schema import check_version, is_current, migrate, newest_version
from .statements import AppliedChanges, ChangeApplier

STATEMENT_SECONDS = 30.0
LOCK_SECONDS = 10.0
APPLY_SECONDS = 60.0
LOOK_SECONDS = 15.0
MIGRATE_SECONDS = 24 * 3600.0
TRIES = 3
IN_EACH_OTHERS_WAY = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)


class PostgresDatabase:
    """Makes changes in one schema of a PostgreSQL."""

    def __init__(self, access: Access, deadlines: Deadlines, owner: Owner | None = None) -> None:
        self._access = access
        self._owner = owner
        self._deadlines = deadlines
        self._sql = load_queries("postgres")
        self._begin = "BEGIN;" + access.begin(STATEMENT_SECONDS, LOCK_SECONDS) + DURABLE
        self._connection: Connection | None = None
        self._unclear = AppliedChanges()
        self._is_unclear = False  # whether what is applied now may have been committed

    def open(self) -> None:
        """Connect, and migrate to this program's schema; see `Database.open`."""
        connection = self._access.connect()
        try:
            with self._deadlines.bound(connection, LOOK_SECONDS):
                is_done = is_current(connection, self._access)
            if not is_done:
                with self._deadlines.bound(connection, MIGRATE_SECONDS):
                    migrate(connection, self._access)
            with self._deadlines.bound(connection, LOOK_SECONDS):
                self._own(connection)
        except psycopg.Error as error:
            connection.close()
            raise StoreAwayError(format_error(error)) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def apply(self, changes: Sequence[Change]) -> list[Any]:
        """Make changes in one transaction; see `Database.apply`."""
        self._is_unclear = False
        try:
            return self._apply(changes)
        except StoreAwayError as error:
            error.is_unclear = self._is_unclear
            raise

    def _apply(self, changes: Sequence[Change]) -> list[Any]:
        for tries in range(1, TRIES + 1):
            is_fresh = self._connection is None
            connection = self._connected()
            try:
                with self._deadlines.bound(connection, APPLY_SECONDS):
                    return self._make(connection, changes)
            except psycopg.Error as error:
                self._tidy(connection, error)
                if is_refusal(error):
                    raise StoreError(format_error(error)) from error
                was_cut = self._connection is None and not is_fresh  # the server was restarted, say: is it back?
                is_late = isinstance(error, TimeLimitError)
                if is_late or not (was_cut or isinstance(error, IN_EACH_OTHERS_WAY)) or tries == TRIES:
                    raise StoreAwayError(format_error(error)) from error
            except BaseException as error:
                self._tidy(connection, error)
                raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def _connected(self) -> Connection:
        """Return the connection, a new one when the last was lost. Raise StoreAwayError."""
        if self._connection is None:
            connection = self._access.reconnect()
            self._check(connection)
            self._connection = connection
        return self._connection

    def _check(self, connection: Connection) -> None:
        """Raise StoreAwayError when the other end is no history of our version or of ours, after a restore, say."""
        try:
            with self._deadlines.bound(connection, APPLY_SECONDS):
                version = check_version(connection, self._access.schema)
                if version != newest_version():
                    raise StoreError(f"the schema {self._access.schema} is of version {version}: start schedulerd again")
                self._own(connection)
        except (psycopg.Error, StoreError) as error:
            connection.close()
            raise StoreAwayError(format_error(error)) from error

    def _own(self, connection: Connection) -> None:
        if self._owner is not None:
            own(connection, self._access, self._owner)

    def _make(self, connection: Connection, changes: Sequence[Change]) -> list[Any]:
        connection.execute(self._begin)
        made = AppliedChanges()
        results = ChangeApplier(connection, self._sql, made, self._unclear).make(changes)
        if not changes:
            connection.execute(self._sql["write_the_same"])
        try:
            connection.execute("COMMIT")
        except psycopg.OperationalError:
            self._unclear, self._is_unclear = self._unclear.joined(made), True
            raise
        self._unclear = self._unclear.without(changes)
        return results

    def _tidy(self, connection: Connection, error: BaseException) -> None:
        """Leave no transaction open; drop a connection that is of no use any more, as one that became read-only."""
        try:
            if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                connection.close()
            elif not connection.closed:
                with self._deadlines.bound(connection, LOCK_SECONDS):
                    connection.rollback()
        except psycopg.Error:
            connection.close()
        if connection.closed:
            self._connection = None
