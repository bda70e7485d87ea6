"""The status of a history in PostgreSQL, read without changing it."""

from __future__ import annotations

import psycopg

from ...core.clock import Clock
from ...core.errors import StoreError
from ...core.models import Secret
from ..queries import load_queries
from ..status import StoreStatus
from .connection import Access, Connection, Deadlines, format_error
from .schema import newest_version, version_of

ASK_SECONDS = 30.0
OWNED_SINCE = 3  # the schema version since which a history has an owner


def schema_status(url: str | Secret, schema: str, clock: Clock) -> StoreStatus:
    """Return the status of the history in a schema. Raise StoreError when it cannot be read."""
    access, deadlines = Access(url, schema, clock), Deadlines(clock)
    try:
        with access.connect() as connection, deadlines.bound(connection, ASK_SECONDS):
            return _read(connection, access)
    except psycopg.Error as error:
        raise StoreError(f"the history in {schema} cannot be read: {format_error(error)}") from error
    finally:
        deadlines.close()


def _read(connection: Connection, access: Access) -> StoreStatus:
    sql, schema = load_queries("postgres"), access.schema
    version = version_of(connection, schema)
    (size,) = connection.execute(sql["size"], {"schema": schema}).fetchone() or (0,)
    users = connection.execute(sql["users"], {"name": access.application}).fetchall()
    runs, owner = {}, None
    if version:
        with connection.transaction():
            connection.execute(f'SET LOCAL search_path = "{schema}", pg_temp')
            runs = dict(connection.execute(sql["counts"]).fetchall())
            if version >= OWNED_SINCE:
                _, owner, _ = connection.execute(sql["owner"]).fetchone() or ("", None, None)
    return StoreStatus("PostgreSQL", version, newest_version(), size, runs, tuple(user for (user,) in users), owner)
