"""Of what databases and their programs say, nothing is kept that may quote a value."""

import sqlite3
from contextlib import closing

import pytest

from schedulerd.secrets.database_errors import ELSEWHERE, postgresql_program, redis_words, sqlite_words

KEPT = [
    (
        'pg_restore: error: could not execute query: ERROR:  role "gone" does not exist\n'
        "Command was: CREATE USER MAPPING FOR gone SERVER far OPTIONS (\n    password 'SECRET',\n    \"user\" 'u'\n);\n",
        'pg_restore: error: could not execute query: ERROR: role "gone" does not exist; '
        f"at CREATE USER MAPPING FOR gone SERVER far OPTIONS; {ELSEWHERE}",
    ),
    (
        'pg_restore: error: COPY failed for table "t": ERROR:  duplicate key value violates unique constraint "t_pk"\n'
        "DETAIL:  Key (ssn)=(SECRET) already exists.\nCONTEXT:  COPY t, line 2\n",
        'pg_restore: error: COPY failed for table "t": ERROR: duplicate key value violates unique constraint "t_pk"; '
        f"{ELSEWHERE}",
    ),
    (
        'pg_dump: error: Dumping the contents of table "t" failed: PQgetResult() failed.\n'
        "pg_dump: detail: Error message from server: ERROR:  canceling statement due to conflict with recovery\n"
        "DETAIL:  User query might have needed to see row versions that must be removed.\n"
        "pg_dump: detail: Command was: COPY public.t (a, b) TO stdout;\n",
        'pg_dump: error: Dumping the contents of table "t" failed: PQgetResult() failed.; pg_dump: detail: Error message '
        f"from server: ERROR: canceling statement due to conflict with recovery; at COPY public.t; {ELSEWHERE}",
    ),
    (
        "pg_restore: [archiver (db)] could not execute query: ERROR:  permission denied for table customers\n"
        "    Command was: COMMENT ON TABLE customers IS 'SECRET';\n",
        "pg_restore: [archiver (db)] could not execute query: ERROR: permission denied for table customers; "
        f"at COMMENT ON TABLE customers; {ELSEWHERE}",
    ),
    (
        'pg_dump: error: connection to server at "h" (::1), port 5 failed: FATAL:  Passwort-Authentifizierung für »u«\n',
        'pg_dump: error: connection to server at "h" (::1), port 5 failed: FATAL:  Passwort-Authentifizierung für »u«',
    ),
    (
        "pg_restore: error: unsupported version (1.15) in file header\n",
        "pg_restore: error: unsupported version (1.15) in file header",
    ),
    ("ERROR:  permission denied for schema s\nLINE 1: SELECT\n", f"ERROR: permission denied for schema s; {ELSEWHERE}"),
]


@pytest.mark.parametrize(("said", "kept"), KEPT)
def test_the_object_and_the_class_of_an_error_are_kept(said, kept):
    assert postgresql_program(said) == kept


@pytest.mark.parametrize("said", [
    'pg_restore: error: COPY failed for table t: ERROR:  bad ssn SECRET\nCONTEXT:  PL/pgSQL function f() line 1 at RAISE\n',
    'pg_restore: error: COPY failed for table "t": FEHLER:  falsch: »SECRET«\nKONTEXT:  COPY t, Zeile 1: »SECRET«\n',
    'pg_restore: error: COPY failed for table "t": ERROR:  relation "SECRET" does not exist\nCONTEXT:  COPY t, line 1\n',
    'pg_dump: error: query failed: ERROR:  relation "SECRET" does not exist\nQUERY:  SELECT * FROM "SECRET"\n',
    'pg_dump: error: query failed: ERROR:  invalid input syntax for type integer: "SECRET"\n',
    "pg_restore: error: could not execute query: ERROR:  no\nCommand was: ALTER ROLE u WITH PASSWORD 'SECRET';\n",
    "pg_restore: error: could not execute query: ERROR:  no\nCommand was: CREATE FUNCTION f() AS $$ SECRET $$;\n",
    "SECRET:  a row\nDETAIL:  SECRET\n\tSECRET\n",
    "pg_dump: hint: SECRET\npg_dump: detail: Query was: SELECT 'SECRET'\npg_dump: The command was: SECRET\n",
])  # fmt: skip
def test_no_value_is_kept(said):
    kept = postgresql_program(said)

    assert "SECRET" not in kept
    assert kept.endswith(ELSEWHERE)


def sqlite_error(statement, *values):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(
            "CREATE TABLE t (a TEXT UNIQUE, b INTEGER NOT NULL DEFAULT 1, CONSTRAINT short CHECK (length(a) < 9));"
            "INSERT INTO t (a) VALUES ('SECRET');"
            "CREATE TRIGGER no BEFORE DELETE ON t BEGIN SELECT RAISE(ABORT, 'SECRET'); END;"
        )
        with pytest.raises(sqlite3.Error) as raised:
            connection.execute(statement, values).fetchall()
    return sqlite_words(str(raised.value), raised.value)


@pytest.mark.parametrize(("statement", "kept"), [
    ("INSERT INTO t (a) VALUES ('SECRET')", "UNIQUE constraint failed: t.a"),
    ("INSERT INTO t (a) VALUES ('far too long')", "CHECK constraint failed: short"),
    ("INSERT INTO t VALUES ('a', NULL)", "NOT NULL constraint failed: t.b"),
    ("SELECT * FROM nowhere", "no such table: nowhere"),
    ("SELEC 1", 'near "SELEC": syntax error'),
    ("DELETE FROM t", f"SQLITE_CONSTRAINT_TRIGGER; {ELSEWHERE}"),
    ("SELECT json_extract('{}', a) FROM t", f"SQLITE_ERROR; {ELSEWHERE}"),
])  # fmt: skip
def test_of_sqlite_names_are_kept_and_no_values(statement, kept):
    assert sqlite_error(statement) == kept


def test_a_value_that_python_cannot_represent_is_not_stored():
    assert "SECRET" not in sqlite_error("SELECT CAST(X'534543524554FF' AS TEXT)")


def test_of_redis_the_kind_of_an_error_is_kept():
    assert redis_words("(error) WRONGTYPE Operation against SECRET") == f"(error) WRONGTYPE; {ELSEWHERE}"
    assert redis_words("(error) ERR unknown command 'X'") == f"(error) ERR unknown command; {ELSEWHERE}"
