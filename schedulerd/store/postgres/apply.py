"""Apply changes to a PostgreSQL schema: a group of changes is a few statements and one commit.

When the answer to a COMMIT is lost, the changes are applied again on a new connection. For rows and ends, twice has the
effect of once. Applied claims and deletions are remembered, because a repetition would have another result.
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
CHECK_SECONDS = 15.0
MIGRATE_SECONDS = 24 * 3600.0
TRIES = 3
CONFLICTS = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)


class PostgresDatabase:
    """Applies changes to one schema of a PostgreSQL database."""

    def __init__(self, access: Access, deadlines: Deadlines, owner: Owner | None = None) -> None:
        self._access = access
        self._owner = owner
        self._deadlines = deadlines
        self._sql = load_queries("postgres")
        self._begin = "BEGIN;" + access.begin(STATEMENT_SECONDS, LOCK_SECONDS) + DURABLE
        self._connection: Connection | None = None
        self._unclear = AppliedChanges()
        self._is_unclear = False  # whether the current changes may have been committed

    def open(self) -> None:
        """Connect and migrate; see `Database.open`."""
        connection = self._access.connect()
        try:
            with self._deadlines.bound(connection, CHECK_SECONDS):
                is_done = is_current(connection, self._access)
            if not is_done:
                with self._deadlines.bound(connection, MIGRATE_SECONDS):
                    migrate(connection, self._access)
            with self._deadlines.bound(connection, CHECK_SECONDS):
                self._claim_ownership(connection)
        except psycopg.Error as error:
            connection.close()
            raise StoreAwayError(format_error(error)) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def apply(self, changes: Sequence[Change]) -> list[Any]:
        """Apply changes in one transaction; see `Database.apply`."""
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
                was_cut = self._connection is None and not is_fresh  # as by a restart of the server: reconnect
                is_late = isinstance(error, TimeLimitError)
                if is_late or not (was_cut or isinstance(error, CONFLICTS)) or tries == TRIES:
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
        """Return the connection, a new one if the last one was lost. Raise StoreAwayError."""
        if self._connection is None:
            connection = self._access.reconnect()
            self._check(connection)
            self._connection = connection
        return self._connection

    def _check(self, connection: Connection) -> None:
        """Raise StoreAwayError when the history has another version or owner, for example after a restore."""
        try:
            with self._deadlines.bound(connection, APPLY_SECONDS):
                version = check_version(connection, self._access.schema)
                if version != newest_version():
                    raise StoreError(f"the schema {self._access.schema} has version {version}: restart schedulerd")
                self._claim_ownership(connection)
        except (psycopg.Error, StoreError) as error:
            connection.close()
            raise StoreAwayError(format_error(error)) from error

    def _claim_ownership(self, connection: Connection) -> None:
        if self._owner is not None:
            own(connection, self._access, self._owner)

    def _make(self, connection: Connection, changes: Sequence[Change]) -> list[Any]:
        connection.execute(self._begin)
        made = AppliedChanges()
        results = ChangeApplier(connection, self._sql, made, self._unclear).apply(changes)
        if not changes:
            connection.execute(self._sql["test_write"])
        try:
            connection.execute("COMMIT")
        except psycopg.OperationalError:
            self._unclear, self._is_unclear = self._unclear.joined(made), True
            raise
        self._unclear = self._unclear.without(changes)
        return results

    def _tidy(self, connection: Connection, error: BaseException) -> None:
        """End the transaction; drop a connection that is not usable any more, for example one that became read-only."""
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
