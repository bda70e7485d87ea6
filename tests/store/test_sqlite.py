"""What the store in a SQLite file promises beyond what every store does."""

import os
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from schedulerd.core.errors import StoreError
from schedulerd.core.models import Result, Status, finish
from schedulerd.store.queries import load_migrations, load_schema
from schedulerd.store.sqlite.store import SqliteStore
from tests.support.builders import NOON, a_run

MINUTE = timedelta(minutes=1)


@pytest.fixture
def store(tmp_path):
    made = SqliteStore(str(tmp_path / "history.db"))
    yield made
    made.close()


def test_the_file_is_private_from_its_first_moment(store):
    for name in ("", "-wal", "-shm"):
        assert stat.S_IMODE(os.stat(store.path + name).st_mode) == 0o600


def test_a_newer_database_is_refused(tmp_path):
    path = str(tmp_path / "h.db")
    SqliteStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()

    with pytest.raises(StoreError, match="newer schedulerd"):
        SqliteStore(path)


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path):
    path = str(tmp_path / "h.db")
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()

    with pytest.raises(StoreError, match="another program"):
        SqliteStore(path)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "h.db"
    path.write_bytes(b"not a database " * 100)

    with pytest.raises(StoreError, match="cannot be used as the history database"):
        SqliteStore(str(path))
    assert path.read_bytes().startswith(b"not a database")


def test_that_a_history_begins_is_said_and_that_one_goes_on_is_not(tmp_path, caplog):
    caplog.set_level("INFO")
    for _ in range(2):
        SqliteStore(str(tmp_path / "h.db")).close()

    assert caplog.text.count(f"no history at {tmp_path}/h.db: a new one is created") == 1


def test_while_the_file_is_locked_changes_wait_and_then_go_through(store, monkeypatch):
    monkeypatch.setattr("schedulerd.store.sqlite.open.BUSY_SECONDS", 0.05)
    impatient = SqliteStore(store.path)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    run = a_run()
    waiting = impatient.record([run])
    with pytest.raises(TimeoutError):
        waiting.result(0.5)
    assert "locked" in impatient.trouble
    other.execute("ROLLBACK")
    other.close()

    assert waiting.result(10) == {run.run_id}
    assert impatient.trouble is None
    impatient.close()


def test_a_history_of_the_first_schema_is_counted_when_it_is_migrated(tmp_path):
    path = str(tmp_path / "h.db")
    store = SqliteStore(path)
    runs = [a_run(f"job{number}", at=NOON + number * MINUTE) for number in range(100)]
    store.record(runs).result(10)
    ends = [replace(run, started_at=run.queued_at + timedelta(milliseconds=number)) for number, run in enumerate(runs)]
    results = [Result(Status.FAILED if number % 3 else Status.SUCCESS) for number in range(100)]
    store.finish([finish(run, result, NOON, 1.5) for run, result in zip(ends, results, strict=True)]).result(10)
    counts = store.counts(), store.counts(NOON + 7 * MINUTE), store.lateness(NOON + 7 * MINUTE)
    store.close()
    go_back_to_the_first_schema(path)
    again = SqliteStore(path)

    assert counts == (again.counts(), again.counts(NOON + 7 * MINUTE), again.lateness(NOON + 7 * MINUTE))
    again.close()


@pytest.mark.parametrize("version", range(len(load_migrations("sqlite"))))
def test_from_every_version_the_migrations_lead_to_the_schema_file(tmp_path, version):
    path = str(tmp_path / "h.db")
    with closing(sqlite3.connect(path)) as connection:
        for number, _, script in load_migrations("sqlite")[:version]:
            connection.executescript(f"{script}; PRAGMA user_version = {number}")
    SqliteStore(path).close()
    with closing(sqlite3.connect(":memory:")) as drawn, closing(sqlite3.connect(path)) as migrated:
        drawn.executescript(load_schema("sqlite"))

        assert definitions(migrated) == definitions(drawn)


def definitions(connection):
    """Return tables by their columns, because ALTER TABLE leaves a text of its own; everything else by its text."""
    tables = connection.execute(
        "SELECT name, wr, strict FROM pragma_table_list WHERE schema = 'main' ORDER BY name"
    ).fetchall()
    columns = [connection.execute("SELECT * FROM pragma_table_xinfo(?)", (name,)).fetchall() for name, *_ in tables]
    others = "SELECT name, sql FROM sqlite_master WHERE type <> 'table' AND sql IS NOT NULL ORDER BY name"
    classes = connection.execute("SELECT upto FROM lateness_classes ORDER BY upto").fetchall()
    return tables, columns, connection.execute(others).fetchall(), classes


def go_back_to_the_first_schema(path):
    connection = sqlite3.connect(path, isolation_level=None)
    kept = connection.execute("SELECT * FROM runs").fetchall()
    for kind in ("trigger", "table"):
        named = f"SELECT name FROM sqlite_master WHERE type = '{kind}'"
        for (name,) in connection.execute(named).fetchall():
            connection.execute(f"DROP {kind.upper()} {name}")
    connection.executescript(load_migrations("sqlite")[0][2] + "; PRAGMA user_version = 1")
    connection.executemany(f"INSERT INTO runs VALUES ({', '.join('?' * 17)})", [row[:17] for row in kept])
    connection.close()
