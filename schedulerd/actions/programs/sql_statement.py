"""Program of the action `sql`: executes a statement in one transaction, completely or not at all.

Values are bound as parameters, never inserted into the text. The first rows of a result are written to standard output,
their columns separated by tabs.
"""

from __future__ import annotations

import os
import re
import sqlite3
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import quote

from ...secrets.database_errors import ELSEWHERE, postgresql_error, sqlite_words
from ...secrets.urls import mask_url
from . import fail, order, report

SHOWN_ROWS = 100
CONNECT_SECONDS = 30
SQLITE = "sqlite://"
ENDS_ITSELF = "COMMIT and ROLLBACK have no place in it"

_TOKEN = re.compile(
    r"""
    (?P<kept>
        (?<!\w)[eE]'(?:[^'\\]|\\.|'')*'     # a text with backslashes
      | '(?:[^']|'')*'                      # a text
      | "(?:[^"]|"")*"                      # a name
      | (?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$
      | --[^\n]*
      | ::
    )
    | (?P<comment>/\*)
    | (?<![\w:]):(?P<name>[a-z][a-z0-9_]*)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"/\*|\*/")


class StatementError(Exception):
    """A statement cannot be executed; the message is schedulerd's own and contains no secret."""


def main() -> None:
    """Execute the statement and report the number of rows."""
    given = order()
    url = given["url"]
    try:
        count = (_sqlite if url.startswith(SQLITE) else _postgresql)(given)
    except Exception as error:  # of any driver; the message is masked
        text = " ".join(str(error).split()) or type(error).__name__
        if text == "not authorized" and url.startswith(SQLITE):  # only `_no_transactions` causes it
            fail(f"the statement begins or ends a transaction itself: it is one already, {ENDS_ITSELF}")
        if text == "interrupted" and url.startswith(SQLITE):
            fail(f"the statement was stopped after its timeout of {given['timeout']:g} s")
        fail(*((_kept(error), text) if url.startswith(SQLITE) else (mask_url(_kept(error), url), mask_url(text, url))))
    sys.stdout.flush()
    report(records_processed=count)


def _kept(error: Exception) -> str:
    """Return the part of an error that may be stored in the history and in the log."""
    if isinstance(error, (StatementError, ImportError)):
        return str(error)
    if isinstance(error, sqlite3.Error):
        return sqlite_words(str(error), error)
    return postgresql_error(error) if hasattr(error, "diag") else f"{type(error).__name__}; {ELSEWHERE}"


def _sqlite(given: Mapping[str, Any]) -> int:
    path = re.sub("^//+", "/", given["url"].removeprefix(SQLITE))  # the URL of a secret is not normalized before
    wait = given["timeout"] or CONNECT_SECONDS
    with closing(_opened(path, wait)) as connection:
        watch = threading.Timer(wait, connection.interrupt)
        watch.daemon = True
        if given["timeout"]:
            watch.start()
        connection.execute("BEGIN")
        connection.set_authorizer(_no_transactions)
        texts = [given["statement"]] if given["params"] else statements(given["statement"])
        count = sum(_executed(connection, text, given["params"]) for text in texts)
        connection.set_authorizer(None)
        connection.execute("COMMIT")
        watch.cancel()
    return count


def _opened(path: str, wait: float) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            f"file:{quote(path)}?mode=rw", uri=True, timeout=wait, isolation_level=None, check_same_thread=False
        )
    except sqlite3.OperationalError as error:
        why = str(error) if os.path.exists(path) else "there is no such file"
        raise StatementError(f"the database {path} cannot be opened: {why}") from error


def _no_transactions(action: int, *_: Any) -> int:
    """Deny BEGIN, COMMIT and ROLLBACK in the statement: it is one transaction."""
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK


def _executed(connection: sqlite3.Connection, text: str, params: Mapping[str, Any]) -> int:
    cursor = connection.execute(text, params)
    if cursor.description is not None:
        return _show([column[0] for column in cursor.description], cursor)
    return max(0, cursor.rowcount)


def statements(text: str) -> Iterator[str]:
    """Yield the statements of an SQLite script."""
    piece = ""
    for part in re.split(r"(?<=;)", text):
        piece += part
        if sqlite3.complete_statement(piece):
            yield piece
            piece = ""
    if piece.strip():
        yield piece


def _postgresql(given: Mapping[str, Any]) -> int:
    import psycopg  # optional: needed only by jobs for PostgreSQL

    params = given["params"]
    text = to_percent(given["statement"], params) if params else given["statement"]
    with psycopg.connect(given["url"], connect_timeout=CONNECT_SECONDS) as connection:
        if given["timeout"]:
            milliseconds = str(max(1, round(given["timeout"] * 1000)))
            connection.execute("SELECT set_config('statement_timeout', %s, true)", [milliseconds])
        cursor = connection.execute(text, params or None)
        count, has_more = 0, True
        while has_more:
            if cursor.description is not None:
                count += _show([column.name for column in cursor.description], cursor)
            else:
                count += max(0, cursor.rowcount)
            has_more = bool(cursor.nextset())
        if connection.info.transaction_status != psycopg.pq.TransactionStatus.INTRANS:
            raise StatementError(f"the statement has ended its transaction itself: {ENDS_ITSELF}")
    return count


def _show(names: Iterable[str], rows: Iterable[Iterable[Any]]) -> int:
    """Write the first rows; return the number of all rows."""
    count = 0
    for count, row in enumerate(rows, 1):
        if count == 1:
            sys.stdout.write(_line(names))
        if count <= SHOWN_ROWS:
            sys.stdout.write(_line(row))
    if count > SHOWN_ROWS:
        sys.stdout.write(f"… ({count} rows)\n")
    return count


def _line(values: Iterable[Any]) -> str:
    texts = ("" if value is None else str(value) for value in values)
    return "\t".join(re.sub(r"[\t\r\n]", " ", text) for text in texts) + "\n"


def to_percent(text: str, names: Collection[str]) -> str:
    """Return a statement with each `:name` replaced by psycopg's `%(name)s`.

    Only the given names are replaced, and none in strings, quoted identifiers and comments.
    """
    out, place = [], 0
    while (found := _TOKEN.search(text, place)) is not None:
        out.append(text[place : found.start()].replace("%", "%%"))
        end = _comment_end(text, found.end()) if found["comment"] else found.end()
        name = found["name"]
        out.append(f"%({name})s" if name in names else text[found.start() : end].replace("%", "%%"))
        place = end
    return "".join([*out, text[place:].replace("%", "%%")])


def _comment_end(text: str, start: int) -> int:
    """Return the end of the block comment whose opening ends at `start`. In PostgreSQL, block comments nest."""
    depth, place = 1, start
    while depth and (found := _COMMENT.search(text, place)) is not None:
        depth += 1 if found[0] == "/*" else -1
        place = found.end()
    return len(text) if depth else place


if __name__ == "__main__":
    main()
