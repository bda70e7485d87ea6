"""The parts of database errors that may be stored: the kind of error and the object, and no content of the database. Pure.

A server quotes values and rows ("Key (ssn)=(…)", "COPY customers, line 2: …"), functions raise any text (RAISE), and
programs repeat whole statements ("Command was: …"), which may contain passwords. Readers of the history, the log and
manifests need not be permitted to read the database. So only phrases are kept that are known to name objects and no
values. The complete messages are in the output of the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

ELSEWHERE = "the complete message is in the run's output, for admins"
LONGEST = 600  # characters
# Actions whose output may quote the contents of a database: only admins can read it, and no message repeats it.
OF_CONTENTS = frozenset({"sql", "backup", "restore_drill"})

_NAME = r'(?:"[^"]*"|[\w.$]+)'
# The beginnings of PostgreSQL's messages that name objects and no values. The rest of a message is omitted.
_POSTGRESQL = re.compile(
    "|".join(
        (
            rf"permission denied(?: (?:for|to) [a-z ]+(?:{_NAME})?)?",
            rf"must be [a-z ]+(?:{_NAME})?",
            rf'[a-z ]+ "[^"]*"(?: (?:of|for|in|on) [a-z ]+ {_NAME})* (?:does not exist|already exists)',
            r"function [\w.$\"]+\([^()']*\) does not exist",
            rf"[a-z -]+ violates [a-z -]+ constraint {_NAME}(?: on table {_NAME})?",
            rf"[a-z ]+ {_NAME}(?: on table {_NAME})? violates [a-z -]+ constraint(?: {_NAME}(?: on table {_NAME})?)?",
            rf"null value in column {_NAME}(?: of relation {_NAME})? violates not-null constraint",
            rf"check constraint {_NAME} of relation {_NAME} is violated by some row",
            rf"column {_NAME} of relation {_NAME} contains null values",
            rf"could not create (?:unique index|exclusion constraint) {_NAME}",
            rf"no partition of relation {_NAME} found for row",
            rf"(?:missing data for column|extra data after last expected column)(?: {_NAME})?",
            r"invalid input (?:syntax|value) for [a-z ]+",
            r"value too long for type [a-z ]+(?:\(\d+\))?",
            r"(?:date/time field value|value|[a-z]+(?: field)?) (?:out of range|overflow)",
            rf"(?:invalid byte sequence for|character with byte sequence|division by zero)(?: encoding {_NAME})?",
            rf"syntax error|cannot execute [A-Z ]+|extension {_NAME} is not available|unrecognized configuration parameter",
            r"cancell?ing (?:statement|autovacuum task) due to [a-z -]+",
            r"terminating connection(?: due to [a-z -]+| because of [a-z -]+)?",
            r"could not (?:serialize access|obtain lock|extend|write|read|open|access|fsync|create|resize)[a-z ]*",
            r"(?:out of (?:shared )?memory|deadlock detected|sorry, too many clients already|too many connections)",
            r"(?:remaining connection slots|the database system is|current transaction is aborted|No space left)[a-z -]*",
            r"(?:invalid page in block|missing chunk number|unexpected chunk number|cache lookup failed for \w+) \d+",
            rf"compressed \w+ data is corrupt|query would be affected by row-level security policy for table {_NAME}",
            rf"(?:password|peer|Ident|LDAP|GSSAPI|RADIUS|certificate)[\w ]* authentication failed for user {_NAME}",
        )
    )
)
_SEVERITY = re.compile(r"(?:(?<=^)|(?<=: ))(?P<severity>[^\W\d_]+):  (?P<words>.*)")  # two spaces follow in every language
_SEVERITIES = ("ERROR", "FATAL", "PANIC")
_OF_PROGRAM = re.compile(r"(?:pg_\w+|psql): (?:\[[^\]]*\] )?(?P<words>.*)")
_HUSH = re.compile(r"(?:(?:detail|hint): )?(?:The command was|Command was|Query was|query was):|(?:detail|hint): ")
_OF_SERVER = re.compile(r"(?:detail: )?Error message from server: ")
_INNER = re.compile(r"^QUERY: |^CONTEXT: .*(?:function|statement)|^[^\n]*PL/", re.MULTILINE)
_ROW = re.compile(r"^CONTEXT:  COPY ", re.MULTILINE)
_COMMAND = re.compile(
    r"[Cc]ommand was: ((?:CREATE|ALTER|DROP|COPY|COMMENT ON|GRANT|REVOKE|REFRESH|INSERT INTO) [^('$;=\n]*)"
)
_DEFINITION = re.compile(r" (?:AS|IS|VALUES|DEFAULT|SET|TO|FROM|USING)\b.*| WITH\b.*")


def postgresql_program(output: str) -> str:
    """Return the storable part of the messages of pg_dump, pg_restore, pg_dumpall or psql, on one line."""
    parts = list(dict.fromkeys(filter(None, (_of_line(line, output) for line in output.splitlines()))))
    command = _COMMAND.search(output)
    if command and parts:
        parts.append(f"at {_DEFINITION.sub('', command[1]).strip()}")
    return _completed("; ".join(parts), is_all=" ".join(parts).split() == output.split())


def _of_line(line: str, output: str) -> str:
    """Return the storable part of a line; continuations of an error (DETAIL, CONTEXT, a row) have no program prefix."""
    own = _OF_PROGRAM.match(line)
    words = own["words"] if own else line
    of_server = _OF_SERVER.match(words)
    if of_server:
        words = words[of_server.end() :]
    elif _HUSH.match(words):
        return ""
    found = _SEVERITY.search(words)
    if found is None or "connection to server" in words[: found.start()]:  # an error before the login contains no content
        return line if own or line.startswith("connection to server") else ""
    if not own and (found.start() or found["severity"] not in _SEVERITIES):  # a row can contain any text
        return ""
    known = None if _INNER.search(output) else _known(found["words"], names_values=bool(_ROW.search(output)))
    start = line[: len(line) - len(words) + found.start()]
    return f"{start}{found['severity']}: {known[0] if known else 'an error that may quote a value'}"


def _known(words: str, names_values: bool) -> re.Match[str] | None:
    """Return the known phrase at the beginning of a message, except "does not exist" when values may stand for names."""
    known = _POSTGRESQL.match(words)
    return None if known is None or (names_values and known[0].endswith(("exist", "exists"))) else known


def postgresql_error(error: Any) -> str:
    """Return the storable part of a psycopg error: class, SQLSTATE, object, and phrases without values."""
    name, diag = type(error).__name__, error.diag
    if error.sqlstate is None:  # raised by libpq or psycopg: a failed connection, or a value that Python cannot represent
        return (
            " ".join(str(error).split())[:LONGEST]
            if name in ("OperationalError", "InterfaceError", "ProgrammingError")
            else name
        )
    primary = diag.message_primary or ""
    is_of_statement = diag.context is None and diag.internal_query is None
    words = primary if is_of_statement and diag.statement_position and error.sqlstate.startswith("42") else ""
    known = _known(primary, names_values=True) if is_of_statement and not words else None
    words = known[0] if known else words
    where = ", ".join(f"{what} {value}" for what, value in _objects_of(diag) if f'"{value}"' not in words)
    text = f"{name} ({error.sqlstate})" + (f": {words}" if words else "") + (f" ({where})" if where else "")
    return _completed(text, is_all=words == " ".join(str(error).split()))


def _objects_of(diag: Any) -> Iterable[tuple[str, str]]:
    if diag.source_function == "exec_stmt_raise":  # RAISE can set any names
        return
    table = ".".join(filter(None, (diag.schema_name, diag.table_name))) if diag.table_name else None
    found = (("table", table), ("column", diag.column_name), ("constraint", diag.constraint_name))
    yield from ((what, value) for what, value in found if value)


_SQLITE = re.compile(
    r"(?:(?:UNIQUE|NOT NULL|PRIMARY KEY|FOREIGN KEY) constraint failed(?:: [\w., \"']+)?"
    r"|no such [a-z ]+: .*|ambiguous column name: .*|near \".*\": syntax error|incomplete input|unrecognized token: .*"
    r"|(?:table|view|index|trigger) .* already exists|there is already .*|table .* has (?:no column|\d+ columns).*"
    r"|cannot (?:start|commit|rollback|open|modify|DROP|ALTER|VACUUM|add|drop|store)[^:]*|wrong number of arguments to .*"
    r"|\d+ values for \d+ columns|datatype mismatch|integer overflow|string or blob too big|out of memory|interrupted"
    r"|not authorized|malformed JSON|CHECK constraint failed: \w+"
    r"|You (?:did not supply|can only execute).*|(?:row|rowid) \d+ missing from .*|wrong # of entries in index .*"
    r"|non-unique entry in index .*|NULL value in .*|row \d+ values differ from .*|Page \d+.*|(?:Tree|On tree) .*|Freelist.*"
    r"|\*\*\* in database \w+ \*\*\*|database .*|attempt to write a readonly database|disk I/O error"
    r"|unable to open database file|file is not a database|malformed database schema .*)",
    re.DOTALL,
)


def sqlite_words(text: str, error: Any = None) -> str:
    """Return the storable part of an SQLite message, or of the `error` that contains it."""
    name = str(getattr(error, "sqlite_errorname", "") or "SQLITE_ERROR")
    line = " ".join(text.split())
    hides = name in ("SQLITE_CONSTRAINT_TRIGGER", "SQLITE_CONSTRAINT_VTAB")
    return line[:LONGEST] if not hides and _SQLITE.fullmatch(line) else _completed(name, is_all=False)


_REDIS = re.compile(
    r"\(error\)(?: [A-Z][A-Z0-9_]*\b)?(?: (?:unknown (?:sub)?command|wrong number of arguments|syntax error))?"
)


def redis_words(text: str) -> str:
    """Return the storable part of a Redis error: its first word (`WRONGTYPE`), because scripts can return any text."""
    found = _REDIS.match(text)
    return _completed(found[0] if found else "", is_all=False)


def _completed(text: str, is_all: bool) -> str:
    text = text if len(text) <= LONGEST else text[:LONGEST] + "…"
    return text if is_all else f"{text}; {ELSEWHERE}" if text else ELSEWHERE
