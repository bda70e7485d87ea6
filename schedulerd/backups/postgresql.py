"""PostgreSQL: one database by pg_dump in its custom format, or what all databases share (roles, tablespaces) by pg_dumpall.

`pg_restore --list` reads only the directory of an archive and takes one that was cut off, so all of it is read, too.
"""

from __future__ import annotations

import os
import re

from ..secrets.database_errors import postgresql_program
from .commands import Tool, call, text_of
from .source import BackupError, Copied, Kind, Order
from .urls import postgresql

CONNECT_SECONDS = "30"
LEFT_OUT = (
    *("--no-owner", "--no-privileges", "--no-tablespaces"),  # the server may have none of these
    *("--no-subscriptions", "--no-publications"),  # a database that subscribes to something cannot be dropped
)
DATABASE_SIZE = "SELECT pg_database_size(current_database())"
DUMPALL_END = b"PostgreSQL database cluster dump complete"


def _tool(order: Order, name: str, *arguments: str, url: str | None = None) -> Tool:
    program = os.path.join(order["pg_bin"], name) if order.get("pg_bin") else name
    if url is None:
        return Tool([program, *arguments], words=_words)
    visible, env = postgresql(url)
    own = {"PGCONNECT_TIMEOUT": CONNECT_SECONDS, "LC_MESSAGES": "C"}  # so that ways_out knows its words
    return Tool([program, "--no-password", f"--dbname={visible}", *arguments], {**own, **env}, words=_words)


def _words(said: str) -> str:
    return "; ".join([postgresql_program(said), *ways_out(said)])


def ways_out(said: str) -> list[str]:
    """Return what to do about what a program of PostgreSQL's said, when its own words don't tell. Pure."""
    found = []
    if "server version mismatch" in said:
        major = re.search(r"server version: (\d+)", said)
        version = major[1] if major else "VERSION"
        folder = f"/usr/lib/postgresql/{version}/bin"
        found.append(f"install postgresql-client-{version}, and name the folder of its programs: pg_bin: {folder}")
    if "conflict with recovery" in said:
        found.append(
            "the standby did not wait for the dump: raise its max_standby_streaming_delay (or max_standby_archive_delay, "
            "when it is fed from an archive), set its hot_standby_feedback, or take the backup from the primary"
        )
    if "in file header" in said:
        found.append("a newer pg_dump made it: name the folder of a newer pg_restore by pg_bin")
    return found


def _dump(order: Order, path: str) -> Copied:
    compression = [] if order["compress"] == "none" else ["--compress=0"]  # it is compressed as a whole, and better so
    schema = [f'--schema="{order["schema"]}"'] if order["schema"] else []
    call(_tool(order, "pg_dump", "--format=custom", f"--file={path}", *compression, *schema, url=order["url"]))
    return Copied(text_of(_tool(order, "pg_dump", "--version")))


def _size(order: Order) -> int:
    """Return how large the database is, or the tables of its schema. A dump is smaller: it has no indexes."""
    schema = (order["schema"] or "").replace("'", "''")
    of_schema = f"FROM pg_class WHERE relkind IN ('r', 'm') AND relnamespace::regnamespace::text = quote_ident('{schema}')"
    question = f"SELECT coalesce(sum(pg_table_size(oid)), 0) {of_schema}" if schema else DATABASE_SIZE
    return int(text_of(_tool(order, "psql", "--no-psqlrc", "-At", f"--command={question}", url=order["url"])))


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
    if not order["into"]:
        raise BackupError("the drill has no into:, the server on which a scratch database is made")
    try:
        from .scratch import hold, scratch_database  # needs psycopg, which only hosts with such drills need
    except ImportError as error:
        raise BackupError(f"a drill of a PostgreSQL needs psycopg (python3-psycopg): {error}") from error
    owner = "/".join(order[name] for name in ("node", "directory", "job_id"))
    with scratch_database(order["into"], owner, order["run_id"]) as url:
        call(_tool(order, "pg_restore", "--exit-on-error", *LEFT_OUT, path, url=url))
        hold(order["assertions"], url)


DATABASE = Kind(".dump", _dump, _check_dump, _size, _restore)
GLOBALS = Kind(".sql", _dump_globals, _check_globals, lambda _order: 0)
