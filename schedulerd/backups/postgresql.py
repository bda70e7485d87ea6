"""PostgreSQL as a source: a database in the custom format of pg_dump, or roles and tablespaces of a server by pg_dumpall.

`pg_restore --list` reads only the table of contents and accepts a truncated archive, so all of it is read, too.
"""

from __future__ import annotations

import os
import re

from ..secrets.database_errors import postgresql_program
from .commands import Tool, call, text_of
from .source import BackupError, Order, SourceCopy, SourceType
from .urls import postgresql

CONNECT_SECONDS = "30"
LEFT_OUT = (
    *("--no-owner", "--no-privileges", "--no-tablespaces"),  # they may not exist on the scratch server
    *("--no-subscriptions", "--no-publications"),  # a database with subscriptions cannot be dropped
)
DATABASE_SIZE = "SELECT pg_database_size(current_database())"
DUMPALL_END = b"PostgreSQL database cluster dump complete"


def _tool(order: Order, name: str, *arguments: str, url: str | None = None) -> Tool:
    program = os.path.join(order["pg_bin"], name) if order.get("pg_bin") else name
    if url is None:
        return Tool([program, *arguments], words=_words)
    visible, env = postgresql(url)
    own = {"PGCONNECT_TIMEOUT": CONNECT_SECONDS, "LC_MESSAGES": "C"}  # ways_out recognizes English messages
    return Tool([program, "--no-password", f"--dbname={visible}", *arguments], {**own, **env}, words=_words)


def _words(said: str) -> str:
    return "; ".join([postgresql_program(said), *ways_out(said)])


def ways_out(said: str) -> list[str]:
    """Return hints for error messages of the programs of PostgreSQL that do not contain one. Pure."""
    found = []
    if "server version mismatch" in said:
        major = re.search(r"server version: (\d+)", said)
        version = major[1] if major else "VERSION"
        folder = f"/usr/lib/postgresql/{version}/bin"
        found.append(f"install postgresql-client-{version}, and set pg_bin: {folder}")
    if "conflict with recovery" in said:
        found.append(
            "the standby cancelled the dump: raise its max_standby_streaming_delay (or max_standby_archive_delay for "
            "a standby that restores from an archive), enable its hot_standby_feedback, or back up the primary"
        )
    if "in file header" in said:
        found.append("a newer pg_dump made the backup: set pg_bin to the folder of a newer pg_restore")
    return found


def _dump(order: Order, path: str) -> SourceCopy:
    compression = [] if order["compress"] == "none" else ["--compress=0"]  # the whole file is compressed later
    schema = [f'--schema="{order["schema"]}"'] if order["schema"] else []
    call(_tool(order, "pg_dump", "--format=custom", f"--file={path}", *compression, *schema, url=order["url"]))
    return SourceCopy(text_of(_tool(order, "pg_dump", "--version")))


def _size(order: Order) -> int:
    """Return the size of the database, or of the tables of a schema. A dump is smaller, since it contains no indexes."""
    schema = (order["schema"] or "").replace("'", "''")
    of_schema = f"FROM pg_class WHERE relkind IN ('r', 'm') AND relnamespace::regnamespace::text = quote_ident('{schema}')"
    question = f"SELECT coalesce(sum(pg_table_size(oid)), 0) {of_schema}" if schema else DATABASE_SIZE
    return int(text_of(_tool(order, "psql", "--no-psqlrc", "-At", f"--command={question}", url=order["url"])))


def _check_dump(order: Order, path: str) -> None:
    call(_tool(order, "pg_restore", "--list", path))
    call(_tool(order, "pg_restore", "--file=-", path))


def _dump_globals(order: Order, path: str) -> SourceCopy:
    call(_tool(order, "pg_dumpall", "--globals-only", f"--file={path}", url=order["url"]))
    return SourceCopy(text_of(_tool(order, "pg_dumpall", "--version")))


def _check_globals(_order: Order, path: str) -> None:
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 1000))
        if DUMPALL_END not in file.read():
            raise BackupError("the output of pg_dumpall is incomplete")


def _restore(order: Order, path: str, _scratch: str) -> None:
    """Restore to a scratch database on the server `into`, check the assertions, and drop it."""
    if not order["into"]:
        raise BackupError("the drill needs `into`, the server on which a scratch database is created")
    try:
        from .scratch import check_assertions, scratch_database  # psycopg is optional
    except ImportError as error:
        raise BackupError(f"a drill of a PostgreSQL needs psycopg (python3-psycopg): {error}") from error
    owner = "/".join(order[name] for name in ("node", "directory", "job_id"))
    with scratch_database(order["into"], owner, order["run_id"]) as url:
        call(_tool(order, "pg_restore", "--exit-on-error", *LEFT_OUT, path, url=url))
        check_assertions(order["assertions"], url)


DATABASE = SourceType(".dump", _dump, _check_dump, _size, _restore)
GLOBALS = SourceType(".sql", _dump_globals, _check_globals, lambda _order: 0)
