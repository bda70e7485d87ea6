"""`schedulerctl db`, on real histories, beside real daemons."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import psycopg
import pytest

from schedulerd.core.clock import SystemClock
from schedulerd.core.models import JobRecord, Pause, Result, Status, finish
from schedulerd.store.changes import RecordRuns
from schedulerd.store.outage_journal import OutageJournal
from schedulerd.store.outage_spool import OutageSpool
from schedulerd.store.postgres.store import PostgresStore
from schedulerd.store.protocol import DailyFigures
from schedulerd.store.queries import load_migrations
from schedulerd.store.sqlite.store import SqliteStore
from tests.support.builders import NOON, a_run
from tests.support.pooler import Pooler
from tests.support.waiting import until

SCHEMAS = count()
MINUTE = timedelta(minutes=1)


@pytest.fixture
def schema():
    return f"db_{next(SCHEMAS)}"


def db(*arguments, env=None):
    """Run `schedulerctl db`; return its exit status, what it prints as JSON (or its text), and its errors."""
    command = [sys.executable, "-m", "schedulerd.cli", "db", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
                          env={**os.environ, **(env or {})})  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def filled(path, rows=4500):
    """Make a SQLite history with something of everything."""
    with closing(SqliteStore(str(path))) as store:
        runs = [a_run(f"job{number % 7}", at=NOON + number * MINUTE, details={"number": number}) for number in range(rows)]
        store.record(runs).result(20)
        started = [replace(run, started_at=run.queued_at) for run in runs[:-10]]
        results = [Result(Status.SUCCESS if number % 3 else Status.FAILED) for number in range(len(started))]
        ends = [finish(run, result, NOON, 1.25) for run, result in zip(started, results, strict=True)]
        store.finish(ends, [a_run("job1", attempt=2, status=Status.QUEUED)]).result(20)
        store.save_jobs([JobRecord("job1", "every: 60s", NOON), JobRecord("job2", "every: 60s", NOON)]).result(20)
        store.set_pause("job1", Pause(NOON, "user:root", "holidays", None)).result(20)
        store.save_day("2026-03-10", [DailyFigures("2026-03-10", "job1", {"success": 2}, 5, 1.0, 2.0, 0.1, 0.2)]).result(20)
    return f"sqlite://{path}"


def everything(store):
    runs, after = [], ""
    while page := store.all_runs(after, 1000):
        runs, after = runs + page, page[-1].run_id
    return runs, store.jobs(), [store.day(day) for day in store.days()], store.counts()


def test_a_history_is_copied_whole_and_a_second_copy_adds_what_came_meanwhile(postgres, schema, tmp_path):
    source = filled(tmp_path / "h.db")
    code, told, _ = db("copy", postgres.url, source, "--schema", schema)
    assert (code, told["entered"], told["is_whole"]) == (0, 4501, True)
    with closing(SqliteStore(str(tmp_path / "h.db"))) as old, closing(PostgresStore(postgres.url, schema)) as new:
        assert everything(new) == everything(old)
        open_run = old.unfinished()[0]
        old.finish([finish(open_run, Result(Status.TIMED_OUT), NOON, 2.0)]).result(10)
        old.record([a_run("late", at=NOON + 9000 * MINUTE)]).result(10)
    code, told, _ = db("copy", postgres.url, source, "--schema", schema)
    assert (code, told["entered"], told["finished"], told["is_whole"]) == (0, 1, 1, True)
    with closing(SqliteStore(str(tmp_path / "h.db"))) as old, closing(PostgresStore(postgres.url, schema)) as new:
        assert everything(new) == everything(old)


def test_what_the_target_has_of_its_own_is_not_written_over_and_is_told(postgres, schema, tmp_path):
    source = filled(tmp_path / "h.db", rows=20)
    with closing(PostgresStore(postgres.url, schema)) as new:
        own = a_run("job0", at=NOON)
        new.record([own]).result(10)
        code, told, _ = db("copy", f"file:{tmp_path}/url", source, "--schema", schema)
        assert (code, told) == (1, None)  # that file is not there
    (tmp_path / "url").write_text(postgres.url)
    code, told, _ = db("copy", f"file:{tmp_path}/url", source, "--schema", schema)

    assert (code, len(told["refused"]), told["is_whole"]) == (1, 1, False)
    with closing(PostgresStore(postgres.url, schema)) as new:
        assert new.run(own.run_id) == own


def test_a_history_is_copied_back_into_a_file(postgres, schema, tmp_path):
    source = filled(tmp_path / "h.db", rows=50)
    db("copy", postgres.url, source, "--schema", schema)
    code, told, _ = db("copy", f"sqlite://{tmp_path}/back.db", postgres.url, "--schema", schema)

    assert (code, told["is_whole"]) == (0, True)
    with closing(SqliteStore(str(tmp_path / "h.db"))) as old, closing(SqliteStore(str(tmp_path / "back.db"))) as back:
        assert everything(back) == everything(old)


def test_beside_a_daemon_status_and_backup_work_and_the_rest_is_refused(daemon, postgres, schema, tmp_path):
    running = daemon({"one": {"shell": "true"}}).start()
    running.client.post("jobs/one/trigger", {})
    config = ("--config", running.config_path)
    code, status, _ = db("status", *config)
    assert (code, status["kind"], status["runs"]["success"], status["is_up_to_date"]) == (0, "SQLite", 1, True)
    code, told, _ = db("backup", tmp_path / "copy.db", *config)
    assert (code, told["size_bytes"]) == (0, (tmp_path / "copy.db").stat().st_size)
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    with closing(SqliteStore(str(tmp_path / "copy.db"))) as copy:
        assert copy.counts() == {"success": 1}
    assert db("backup", tmp_path / "copy.db", *config)[0] == 1  # nothing is replaced
    assert [name for name in os.listdir(tmp_path) if "partial" in name] == []
    (tmp_path / "link.db").symlink_to(running.folder / "state" / "history.db")
    by_link = f"sqlite://{tmp_path}/link.db"
    for arguments in (["migrate", *config], ["migrate", by_link], ["copy", postgres.url, *config, "--schema", schema]):
        code, _, error = db(*arguments)
        assert code == 1
        assert "another schedulerd uses" in error
    running.stop()
    assert db("migrate", *config)[0] == 0


def test_beside_a_daemon_on_postgresql_too(daemon, postgres, schema, tmp_path):
    running = daemon({}, store=postgres.url, store_schema=schema).start()
    config = ("--config", running.config_path)
    code, status, _ = db("status", *config)
    assert (code, status["kind"], status["schema"], status["users"]) == (0, "PostgreSQL", schema, ["this host"])
    code, _, error = db("copy", postgres.url, filled(tmp_path / "h.db", rows=5), "--schema", schema)
    assert code == 1
    assert "a daemon on this host uses the schema" in error
    code, _, error = db("backup", tmp_path / "x", *config)
    assert code == 1
    assert "pg_dump --format=custom" in error


@pytest.mark.parametrize(("name", "option"), [("a_name_of_{}_" + "x" * 44, ""), ("named_{}", "&application_name=mine")])
def test_a_daemon_is_seen_whatever_the_length_of_its_schemas_name_and_the_name_in_its_url(daemon, postgres, name, option):
    schema = name.format(next(SCHEMAS))
    running = daemon({}, store=postgres.url + option, store_schema=schema).start()
    for place in (postgres.url, postgres.url + option):
        code, _, error = db("migrate", place, "--schema", schema)
        assert code == 1
        assert "a daemon on this host uses the schema" in error
    running.stop()
    assert db("migrate", postgres.url + option, "--schema", schema)[0] == 0


def test_what_a_pooler_keeps_open_of_a_daemon_that_is_stopped_is_told(daemon, postgres, schema):
    pooler = Pooler(postgres.folder)
    try:
        daemon({}, store=pooler.url, store_schema=schema).start().stop()
        code, _, error = db("migrate", postgres.url, "--schema", schema)
        assert code == 1
        assert "wait until its connection pooler has closed" in error
    finally:
        pooler.close()
    until(lambda: db("migrate", postgres.url, "--schema", schema)[0] == 0, "the end of its connections")


def test_an_old_history_is_migrated_and_a_newer_one_refused(postgres, schema, tmp_path):
    path = tmp_path / "h.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(load_migrations("sqlite")[0][2] + "; PRAGMA user_version = 1")
    assert db("status", f"sqlite://{path}")[0] == 1
    code, _, error = db("copy", postgres.url, f"sqlite://{path}", "--schema", schema)
    assert code == 1
    assert "schedulerctl db migrate" in error
    code, told, _ = db("migrate", f"sqlite://{path}")
    assert (code, told["before"], told["after"]) == (0, 1, len(load_migrations("sqlite")))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")
    code, _, error = db("migrate", f"sqlite://{path}")
    assert code == 1
    assert "newer schedulerd" in error
    code, told, _ = db("migrate", postgres.url, "--schema", schema)
    assert (code, told["before"], told["after"]) == (0, 0, len(load_migrations("postgres")))
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute(f"SELECT count(*) FROM {schema}.runs").fetchone() == (0,)


def test_a_damaged_or_missing_history_is_left_as_it_is(tmp_path):
    path = tmp_path / "h.db"
    source = filled(path, rows=500)
    data = bytearray(path.read_bytes())
    data[8192:12288] = os.urandom(4096)
    path.write_bytes(data)
    code, _, error = db("migrate", source)
    assert code == 1
    assert "is damaged" in error
    assert path.read_bytes() == bytes(data)
    code, _, error = db("migrate", f"sqlite://{tmp_path}/none.db")
    assert code == 1
    assert "there is no history" in error
    assert not (tmp_path / "none.db").exists()


def test_while_changes_wait_in_the_outage_journal_nothing_is_copied(postgres, schema, tmp_path):
    source = filled(tmp_path / "h.db", rows=5)
    spool = OutageSpool(OutageJournal(str(tmp_path / "outage.journal"), 1 << 20), SystemClock())
    spool.accept([RecordRuns([a_run("waits")])])
    spool.close()
    (tmp_path / "disk").mkdir()
    (tmp_path / "h.db").rename(tmp_path / "disk" / "real.db")
    (tmp_path / "h.db").symlink_to(tmp_path / "disk" / "real.db")
    code, _, error = db("copy", postgres.url, source, "--schema", schema)

    assert code == 1
    assert "1 change of an outage in" in error


def test_a_password_among_the_arguments_is_refused():
    code, _, error = db("status", "postgresql://me:hid-den@localhost/x")

    assert code == 1
    assert "can be read by all users" in error
    assert "hid-den" not in error


@pytest.mark.parametrize("words", [("status",), ("migrate",), ("release",), ("copy",)])
def test_without_psycopg_it_says_what_to_install(tmp_path, words):
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError(\"No module named 'psycopg'\")\n")
    source = [filled(tmp_path / "h.db", rows=20)] if words == ("copy",) else []
    env = {"PYTHONPATH": str(tmp_path), "DSN": "postgresql://db/history"}
    code, _, errors = db(*words, "env:DSN", *source, env=env)

    assert (code, errors) == (1, "schedulerctl: a history in PostgreSQL needs psycopg (Debian: python3-psycopg): "
                                 "No module named 'psycopg'\n")  # fmt: skip


def test_a_secret_that_names_a_file_is_told_what_to_write_instead(tmp_path):
    code, _, errors = db("status", "env:URL", env={"URL": f"sqlite:///{tmp_path}/h.db"})

    assert (code, errors) == (1, "schedulerctl: the secret {env: URL} names a file: write sqlite:///PATH itself, it"
                                 " contains no secret\n")  # fmt: skip
