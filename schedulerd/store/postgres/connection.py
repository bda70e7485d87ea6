"""Connections to a PostgreSQL server, with time limits, and the meaning of their errors.

No state is kept in a session, so a pooler in transaction mode can be used: no prepared statements, only SET LOCAL. Every
wait has a limit, also when the host of the server has disappeared without closing the connection.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import TextLoader

from ...core.clock import Clock
from ...core.errors import SchedulerdError, StoreAwayError, StoreError
from ...core.models import Secret
from ...secrets.references import resolve
from ...secrets.urls import mask_url

log = logging.getLogger(__name__)

Connection = psycopg.Connection[Any]

DEFAULTS = {  # libpq parameters that the URL can override; seconds, the last one milliseconds
    "connect_timeout": "5", "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}  # fmt: skip
OF_SEVERAL = {"target_session_attrs": "read-write"}  # with several hosts: not a standby, which may lack recorded starts
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")  # libpq, "SSL Support"
MOST_OF_A_NAME = 63  # bytes; the server truncates longer names
AWAY_SECONDS = 1.0
CHECK_SECONDS = 0.5
REFUSALS = ("22", "23", "54")  # classes of SQLSTATE: bad data, constraint, too large; other errors may be temporary


class Access:
    """How to connect to the history. Secrets are resolved for each connection and not kept."""

    def __init__(self, url: str | Secret, schema: str, clock: Clock) -> None:
        self.schema = schema
        self.clock = clock
        self._url = url
        self._failure: tuple[float, str] | None = None

    @property
    def application(self) -> str:
        """Return the application_name of our connections, by which `db migrate` finds them in pg_stat_activity."""
        return f"schedulerd/{self.schema}"[:MOST_OF_A_NAME]

    def connect(self) -> Connection:
        """Return a connection. Raise StoreAwayError, SecretError, or StoreError for an invalid URL."""
        url = resolve(self._url)
        if url.startswith("sqlite:"):
            raise StoreError(f"the secret {self._url} names a file: write sqlite:///PATH itself, it contains no secret")
        try:
            connection: Connection = psycopg.Connection.connect(
                **self._parameters(url), autocommit=True, prepare_threshold=None
            )
        except psycopg.OperationalError as error:
            raise StoreAwayError(f"the history cannot be reached: {format_error(error, url)}") from None
        except psycopg.Error as error:
            raise StoreError(f"the history's URL cannot be used: {format_error(error, url)}") from None
        connection.add_notice_handler(_log_warning)
        connection.adapters.register_loader("timestamptz", _InstantLoader)
        connection.adapters.register_loader("json", TextLoader)
        return connection

    def _parameters(self, url: str) -> dict[str, Any]:
        given = conninfo_to_dict(url)
        _check_mode(given.get("sslmode"))
        defaults = DEFAULTS | OF_SEVERAL if "," in f"{given.get('host')}{given.get('hostaddr')}" else DEFAULTS
        return {**defaults, **given, "application_name": self.application, "client_encoding": "UTF8"}

    def reconnect(self) -> Connection:
        """Return a further connection. Raise StoreAwayError for any error: it succeeded before, so a retry may succeed."""
        try:
            connection = self.connect()
        except SchedulerdError as error:
            self._failure = self.clock.monotonic(), str(error)
            raise StoreAwayError(str(error)) from error
        self._failure = None
        return connection

    def reconnect_or_fail(self) -> Connection:
        """Return a further connection without a long wait: a failure younger than AWAY_SECONDS is raised again."""
        failure = self._failure
        if failure is not None and self.clock.monotonic() - failure[0] < AWAY_SECONDS:
            raise StoreAwayError(failure[1])
        return self.reconnect()

    def begin(self, statement_seconds: float, lock_seconds: float) -> str:
        """Return the SET LOCAL statements with which a transaction begins."""
        return (
            f'SET LOCAL search_path = "{self.schema}", pg_temp;'
            f" SET LOCAL statement_timeout = {round(statement_seconds * 1000)};"
            f" SET LOCAL lock_timeout = {round(lock_seconds * 1000)};"
            " SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL extra_float_digits = 1;"
            " SET LOCAL array_nulls = on;"
        )


DURABLE = "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';"


class TimeLimitError(psycopg.OperationalError):
    """The server did not answer in time, and the connection was closed. It is not retried: that could take as long again."""


class Deadlines:
    """Closes connections that wait too long for the server."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._until: dict[Connection, float] = {}
        self._most = math.inf
        self._sleeps = False
        self._is_closed = False
        threading.Thread(target=self._watch, name="store-deadlines", daemon=True).start()

    @contextmanager
    def bound(self, connection: Connection, seconds: float) -> Iterator[None]:
        """Close a connection when the block takes longer than `seconds`; the block fails then with TimeLimitError."""
        with self._changed:
            self._until[connection] = self._clock.monotonic() + min(seconds, self._most)
            if self._sleeps:
                self._changed.notify()
        try:
            yield
        except psycopg.Error as error:
            if connection not in self._until:
                raise TimeLimitError("the server did not answer in time") from error
            raise
        finally:
            with self._changed:
                self._until.pop(connection, None)

    def hurry(self, seconds: float) -> None:
        """Limit all waits to `seconds` from now on, current ones included."""
        with self._changed:
            self._most = seconds
            latest = self._clock.monotonic() + seconds
            self._until = {connection: min(until, latest) for connection, until in self._until.items()}

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._is_closed:
                now = self._clock.monotonic()
                for connection in [each for each, until in self._until.items() if until <= now]:
                    del self._until[connection]  # before it is closed: by this, the other thread knows the cause
                    _cut(connection)
                self._sleeps = not self._until
                self._changed.wait(None if self._sleeps else CHECK_SECONDS)


def is_refusal(error: psycopg.Error) -> bool:
    """Return whether an error is caused by the data to be written, so that a retry would fail as well."""
    if error.sqlstate is not None:
        return error.sqlstate[:2] in REFUSALS
    return not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def format_error(error: BaseException, url: str = "") -> str:
    """Return the text of an error on one line, with the secrets of the URL masked."""
    text = " ".join(str(error).split()) or type(error).__name__
    return mask_url(text, url) if "@" in url else text


def _check_mode(mode: object) -> None:
    """Raise StoreError for a mode that libpq does not accept: its own error looks like that of an unreachable server."""
    if mode and mode not in SSL_MODES:
        raise StoreError(f"the history's URL has sslmode={mode}: expected one of {', '.join(SSL_MODES)}")


def _cut(connection: Connection) -> None:
    """Shut down the socket of a connection that another thread waits for. This needs no further descriptor."""
    with suppress(OSError, psycopg.Error):
        line = socket.socket(fileno=connection.fileno())
        try:
            line.shutdown(socket.SHUT_RDWR)
        finally:
            line.detach()


def _log_warning(notice: psycopg.errors.Diagnostic) -> None:
    """Log a warning of the server, for example that a commit is not on a synchronous standby."""
    if notice.severity_nonlocalized == "WARNING":
        log.warning("PostgreSQL warning: %s", "; ".join(filter(None, (notice.message_primary, notice.message_detail))))


class _InstantLoader(Loader):
    """Parses instants that PostgreSQL writes with `timezone = UTC` and `datestyle = ISO`."""

    def load(self, data: Any) -> datetime:
        return datetime.fromisoformat(bytes(data).decode()).astimezone(UTC)
