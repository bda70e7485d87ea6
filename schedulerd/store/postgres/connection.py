"""How to reach a PostgreSQL: connections with bounds, and what their errors mean.

Nothing is kept in a session, so that a pooler in transaction mode may stand between: no prepared statements, no SET but
SET LOCAL. Whatever is waited for has a bound, also when the server's machine is gone and nothing tells so.
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

DEFAULTS = {  # unless the URL says otherwise: see the table of libpq's parameters; seconds, and milliseconds for the last
    "connect_timeout": "5", "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}  # fmt: skip
OF_SEVERAL = {"target_session_attrs": "read-write"}  # hosts: not a standby, which may lack what was started already
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")  # libpq, "SSL Support"
MOST_OF_A_NAME = 63  # bytes: the server cuts longer ones
AWAY_SECONDS = 1.0
LOOK_SECONDS = 0.5
REFUSALS = ("22", "23", "54")  # classes of SQLSTATE: bad data, constraint, too large; everything else may pass by itself


class Access:
    """Where the history is, and as whom it is used. What is secret is looked up for each connection, and kept nowhere."""

    def __init__(self, url: str | Secret, schema: str, clock: Clock) -> None:
        self.schema = schema
        self.clock = clock
        self._url = url
        self._failure: tuple[float, str] | None = None

    @property
    def application(self) -> str:
        """Return how our connections are named in pg_stat_activity, whatever the URL says: `db migrate` looks for them."""
        return f"schedulerd/{self.schema}"[:MOST_OF_A_NAME]

    def connect(self) -> Connection:
        """Return a connection. Raise StoreAwayError, SecretError, or StoreError for a URL that is none."""
        url = resolve(self._url)
        if url.startswith("sqlite:"):
            raise StoreError(f"the secret {self._url} names a file: sqlite:///PATH, which hides nothing, is written itself")
        try:
            connection: Connection = psycopg.Connection.connect(
                **self._parameters(url), autocommit=True, prepare_threshold=None
            )
        except psycopg.OperationalError as error:
            raise StoreAwayError(f"the history cannot be reached: {format_error(error, url)}") from None
        except psycopg.Error as error:
            raise StoreError(f"the history's URL cannot be used: {format_error(error, url)}") from None
        connection.add_notice_handler(_heed)
        connection.adapters.register_loader("timestamptz", _InstantLoader)
        connection.adapters.register_loader("json", TextLoader)
        return connection

    def _parameters(self, url: str) -> dict[str, Any]:
        given = conninfo_to_dict(url)
        _check_mode(given.get("sslmode"))
        defaults = DEFAULTS | OF_SEVERAL if "," in f"{given.get('host')}{given.get('hostaddr')}" else DEFAULTS
        return {**defaults, **given, "application_name": self.application, "client_encoding": "UTF8"}

    def reconnect(self) -> Connection:
        """Return another connection. Raise StoreAwayError: it was possible before, so it may be again, whatever is wrong."""
        try:
            connection = self.connect()
        except SchedulerdError as error:
            self._failure = self.clock.monotonic(), str(error)
            raise StoreAwayError(str(error)) from error
        self._failure = None
        return connection

    def reconnect_or_fail(self) -> Connection:
        """Do the same for whom must not wait: a failure that is not older than AWAY_SECONDS is told again at once."""
        failure = self._failure
        if failure is not None and self.clock.monotonic() - failure[0] < AWAY_SECONDS:
            raise StoreAwayError(failure[1])
        return self.reconnect()

    def begin(self, statement_seconds: float, lock_seconds: float) -> str:
        """Return the settings of a transaction: they end with it. Commits are durable whatever the server's default is."""
        return (
            f'SET LOCAL search_path = "{self.schema}", pg_temp;'
            f" SET LOCAL statement_timeout = {round(statement_seconds * 1000)};"
            f" SET LOCAL lock_timeout = {round(lock_seconds * 1000)};"
            " SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL extra_float_digits = 1;"
            " SET LOCAL array_nulls = on;"
        )


DURABLE = "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';"


class TimeLimitError(psycopg.OperationalError):
    """An answer did not come in time: its connection was cut. To ask once more would take as long again."""


class Deadlines:
    """Cuts connections that were used for too long: a server that takes orders and never answers is not waited for."""

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
        """Cut a connection when what is done here takes longer; it fails then with LateError."""
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
        """From now on let nothing take longer than this, what is under way included."""
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
                    del self._until[connection]  # before it is cut: that is how the other thread knows why
                    _cut(connection)
                self._sleeps = not self._until
                self._changed.wait(None if self._sleeps else LOOK_SECONDS)


def is_refusal(error: psycopg.Error) -> bool:
    """Return whether an error is about what was to be written, and would be the same at any other time."""
    if error.sqlstate is not None:
        return error.sqlstate[:2] in REFUSALS
    return not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def format_error(error: BaseException, url: str = "") -> str:
    """Return what a driver says, on one line, without what is secret in the URL."""
    text = " ".join(str(error).split()) or type(error).__name__
    return mask_url(text, url) if "@" in url else text


def _check_mode(mode: object) -> None:
    """Raise StoreError for a mode that libpq will never take: its own error looks as if the server were away."""
    if mode and mode not in SSL_MODES:
        raise StoreError(f"the history's URL has sslmode={mode}: expected one of {', '.join(SSL_MODES)}")


def _cut(connection: Connection) -> None:
    """End a conversation under the driver that waits for it. That needs no descriptor: there may be none to be had."""
    with suppress(OSError, psycopg.Error):
        line = socket.socket(fileno=connection.fileno())
        try:
            line.shutdown(socket.SHUT_RDWR)
        finally:
            line.detach()


def _heed(notice: psycopg.errors.Diagnostic) -> None:
    """Log a warning of the server, such as that a commit is not on the standby although it was waited for."""
    if notice.severity_nonlocalized == "WARNING":
        log.warning("PostgreSQL warns: %s", "; ".join(filter(None, (notice.message_primary, notice.message_detail))))


class _InstantLoader(Loader):
    """Reads what PostgreSQL writes with `timezone = UTC` and `datestyle = ISO`."""

    def load(self, data: Any) -> datetime:
        return datetime.fromisoformat(bytes(data).decode()).astimezone(UTC)
