"""PostgreSQL: one database by pg_dump in its custom format, or what all databases share (roles, tablespaces) by pg_dumpall.

`pg_restore --list` reads only the directory of an archive and takes one that was cut off, so all of it is read, too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..secrets import scrubbed
from . import BackupError, Copied, Kind, Order, RefutedError
from .tools import Tool, call, text_of
from .urls import postgresql, with_database

CONNECT_SECONDS = "30"
DUMPALL_END = b"PostgreSQL database cluster dump complete"
SCRATCH = "schedulerd_drill_"


def _tool(order: Order, name: str, *arguments: str, url: str | None = None) -> Tool:
    program = os.path.join(order["pg_bin"], name) if order.get("pg_bin") else name
    if url is None:
        return Tool([program, *arguments])
    visible, env = postgresql(url)
    return Tool([program, "--no-password", f"--dbname={visible}", *arguments], {"PGCONNECT_TIMEOUT": CONNECT_SECONDS, **env})


def _dump(order: Order, path: str) -> Copied:
    compression = [] if order["compress"] == "none" else ["--compress=0"]  # it is compressed as a whole, and better so
    call(_tool(order, "pg_dump", "--format=custom", f"--file={path}", *compression, url=order["url"]))
    return Copied(text_of(_tool(order, "pg_dump", "--version")))


def _check_dump(order: Order, path: str) -> None:
    call(_tool(order, "pg_restore", "--list", path))
    call(_tool(order, "pg_restore", "--file=-", path))


def _dump_globals(order: Order, path: str) -> Copied:
    call(_tool(order, "pg_dumpall", "--globals-only", f"--file={path}", url=order["url"]))
    return Copied(text_of(_tool(order, "pg_dumpall", "--version")))


def _check_globals(_order: Order, path: str) -> None:
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 1000))
        if DUMPALL_END not in file.read():
            raise BackupError("what pg_dumpall wrote has no end")


def _restore(order: Order, path: str, _scratch: str) -> None:
    """Restore into a database of its own on the server `into`, ask the assertions, and drop it."""
    with _scratch_database(order) as url:
        options = ("--exit-on-error", "--no-owner", "--no-privileges")
        call(_tool(order, "pg_restore", *options, path, url=url))
        _assert(order, url)


@contextmanager
def _scratch_database(order: Order) -> Iterator[str]:
    if not order["into"]:
        raise BackupError("the drill has no into:, the server on which a scratch database is made")
    import psycopg  # optional: only hosts that back up a PostgreSQL need it

    # What a killed drill left is dropped first, of this job on this host alone. PostgreSQL cuts names at 63 bytes.
    owner = hashlib.blake2b(f"{order['node']}/{order['job_id']}".encode(), digest_size=8).hexdigest()
    prefix = f"{SCRATCH}{owner}_"
    name = prefix + order["run_id"].replace("-", "")[-20:]
    try:
        with psycopg.connect(order["into"], autocommit=True, connect_timeout=int(CONNECT_SECONDS)) as connection:
            left = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [prefix]).fetchall()
            for (old,) in left:
                connection.execute(_named("DROP DATABASE {} WITH (FORCE)", old))
            connection.execute(_named("CREATE DATABASE {} TEMPLATE template0", name))
            try:
                yield with_database(order["into"], name)
            finally:
                connection.execute(_named("DROP DATABASE IF EXISTS {} WITH (FORCE)", name))
    except psycopg.Error as error:
        text = " ".join(str(error).split())
        raise BackupError(f"the scratch database: {scrubbed(text, order['into'])}") from None


def _named(statement: str, name: str) -> Any:
    from psycopg import sql

    return sql.SQL(statement).format(sql.Identifier(name))


def _assert(order: Order, url: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True, connect_timeout=int(CONNECT_SECONDS)) as connection:
        for text in order["assertions"]:
            try:
                row = connection.execute(text).fetchone()
            except psycopg.Error as error:
                raise RefutedError(f"the assertion {text!r} failed: {' '.join(str(error).split())}") from None
            if row is None or not row[0]:
                raise RefutedError(f"the assertion {text!r} is not true: {row[0] if row else 'no row'}")


DATABASE = Kind(".dump", _dump, _check_dump, _restore)
GLOBALS = Kind(".sql", _dump_globals, _check_globals)
