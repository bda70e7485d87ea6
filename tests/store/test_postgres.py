"""What the store in PostgreSQL promises beyond what every store does; every fault is a real one."""

import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import psycopg
import pytest

from schedulerd.core.clock import SystemClock
from schedulerd.core.errors import StoreAwayError, StoreError
from schedulerd.core.models import Result, Secret, Status, finish
from schedulerd.store.changes import ClaimRun, DeleteRuns, FinishRuns, RecordRuns
from schedulerd.store.postgres import apply
from schedulerd.store.postgres import store as postgres_store
from schedulerd.store.postgres.apply import PostgresDatabase
from schedulerd.store.postgres.connection import Access, Deadlines
from schedulerd.store.postgres.store import PostgresStore
from schedulerd.store.queries import load_migrations, load_schema
from tests.support.builders import NOON, a_run
from tests.support.pooler import Pooler
from tests.support.servers import PostgresServer
from tests.support.severing import SeveringProxy
from tests.support.waiting import until

ROUNDS = 200
SCHEMAS = count()


@pytest.fixture
def schema():
    return f"own_{next(SCHEMAS)}"


@pytest.fixture
def proxy(postgres, tmp_path):
    made = SeveringProxy(postgres.folder, tmp_path)
    yield made
    made.close()


@pytest.fixture
def database(proxy, schema):
    clock = SystemClock()
    deadlines = Deadlines(clock)
    made = PostgresDatabase(Access(proxy.url, schema, clock), deadlines)
    made.open()
    yield made
    made.close()
    deadlines.close()


@pytest.fixture
def own_server():
    server = PostgresServer()
    yield server
    server.close()


def rows(server, schema, what="*", where="true"):
    with psycopg.connect(server.url) as connection:
        return connection.execute(f"SELECT {what} FROM {schema}.runs WHERE {where}").fetchall()


def ended(run, status=Status.SUCCESS):
    return finish(run, Result(status), NOON, 1.5)


def lossy(proxy, database, changes):
    """Make changes while the first answer to COMMIT is lost; return what is answered after the repetition."""
    connect = database._access.reconnect
    proxy.lose_answers = True

    def heal():
        proxy.lose_answers = False
        return connect()

    database._access.reconnect = heal
    try:
        return database.apply(changes)
    finally:
        database._access.reconnect = connect


def test_with_the_answers_to_commit_lost_nothing_is_lost_doubled_or_answered_otherwise(proxy, database, postgres, schema):
    for number in range(ROUNDS):
        run, waiting, old = a_run(f"a{number}"), a_run(f"b{number}", status=Status.QUEUED), a_run(f"c{number}")
        again = a_run(f"a{number}", attempt=2, status=Status.QUEUED)
        database.apply([RecordRuns([waiting, old]), FinishRuns([ended(old)])])
        answers = lossy(proxy, database, [
            RecordRuns([run]), RecordRuns([a_run(f"a{number}")]), ClaimRun(waiting.run_id), ClaimRun(waiting.run_id),
            FinishRuns([ended(run, Status.FAILED)], [again]), DeleteRuns([old.run_id, "no such"]),
        ])  # fmt: skip

        assert answers == [{run.run_id}, frozenset(), True, False, {again.run_id}, [old.run_id]]
        assert database.apply([ClaimRun(waiting.run_id), DeleteRuns([old.run_id])]) == [False, []]
    assert proxy.lost == ROUNDS
    found = rows(postgres, schema, "job_id, attempt, status")
    assert len(found) == len(set(found)) == 3 * ROUNDS
    assert {status for job, attempt, status in found if job.startswith("a") and attempt == 1} == {"failed"}
    assert {status for job, _, status in found if job.startswith("b")} == {"running"}


def test_what_is_unclear_is_remembered_until_it_is_made_again(proxy, database, monkeypatch):
    waiting, old = a_run("a", status=Status.QUEUED), a_run("b")
    unclear = [ClaimRun(waiting.run_id), DeleteRuns([old.run_id])]
    database.apply([RecordRuns([waiting, old]), FinishRuns([ended(old)])])

    def fail():
        proxy.lose_answers = False
        raise StoreAwayError("not yet")

    proxy.lose_answers = True
    with monkeypatch.context() as patch:
        patch.setattr(database._access, "reconnect", fail)
        with pytest.raises(StoreAwayError):
            database.apply(unclear)
    database.apply([RecordRuns([a_run("other")])])

    assert database.apply(unclear) == [True, [old.run_id]]
    assert database.apply(unclear) == [False, []]


def test_a_thousand_rows_are_one_commit_and_few_statements(postgres, schema):
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        store = PostgresStore(postgres.url, schema)
        made = store._database._connection
        sent = []
        execute = made.execute
        made.execute = lambda query, *values: sent.append(query) or execute(query, *values)
        before, commits = commits_of(connection), store.commits
        runs = [a_run(f"job{number}") for number in range(1000)]
        for future in [store.record(runs), store.finish([ended(run) for run in runs])]:
            future.result(10)
        store.close()

        assert store.commits - commits <= 2
        assert len(sent) <= 6
        until(lambda: commits_of(connection) > before, "the server's own count")
        assert commits_of(connection) - before < 50  # of everything that goes on in the server meanwhile


def commits_of(connection):
    return connection.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()").fetchone()[0]


def test_a_connection_that_was_cut_is_made_anew_before_anybody_notices(postgres, schema, caplog):
    store = PostgresStore(postgres.url, schema)
    run = a_run()
    store.record([run]).result(10)
    assert store.run(run.run_id) is not None
    cut_all(postgres, schema)

    assert store.run(run.run_id) is not None
    assert store.record([a_run("b")]).result(10)
    assert store.trouble is None
    store.close()


def cut_all(server, schema):
    with psycopg.connect(server.url) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
                           (f"schedulerd/{schema}",))  # fmt: skip


def test_readers_fail_at_once_while_the_server_is_away_and_writes_go_through_afterwards(own_server):
    store = PostgresStore(own_server.url)
    own_server.stop()
    run = a_run()
    waiting = store.record([run])
    until(lambda: store.trouble, "the trouble")
    for _ in range(20):
        with pytest.raises(StoreAwayError, match="cannot be"):
            store.recent(1)
    own_server.start()

    assert waiting.result(10) == {run.run_id}
    until(lambda: store.trouble is None, "the end of the trouble")
    assert store.run(run.run_id) == run
    store.close()


def test_a_server_that_takes_questions_and_never_answers_holds_up_nobody_for_long(proxy, schema, monkeypatch):
    monkeypatch.setattr(postgres_store, "READ_SECONDS", 0.5)
    monkeypatch.setattr(apply, "APPLY_SECONDS", 0.5)
    store = PostgresStore(f"{proxy.url}&connect_timeout=2", schema)
    assert store.recent(1) == []
    proxy.freezes = True
    waiting = store.record([a_run()])

    with pytest.raises(StoreAwayError, match="did not answer in time"):  # and was not asked again
        store.recent(1)
    until(lambda: store.trouble, "the trouble")
    proxy.freezes = False
    assert waiting.result(20)
    store.close()


def test_a_read_that_takes_too_long_is_stopped_by_the_server(postgres, schema, monkeypatch):
    monkeypatch.setattr("schedulerd.store.postgres.store.STATEMENT_SECONDS", 0.2)
    store = PostgresStore(postgres.url, schema)
    store._sql["slow"] = "SELECT pg_sleep(30)"

    with pytest.raises(StoreAwayError, match="statement timeout"):
        store._rows("slow")
    assert store.recent(1) == []
    store.close()


def test_what_is_locked_is_waited_for_and_then_told(postgres, schema, monkeypatch):
    monkeypatch.setattr(apply, "LOCK_SECONDS", 0.2)
    store = PostgresStore(postgres.url, schema)
    with psycopg.connect(postgres.url) as other:
        other.execute(f"LOCK TABLE {schema}.runs")
        waiting = store.record([a_run()])
        until(lambda: "lock timeout" in (store.trouble or ""), "the trouble")
    assert waiting.result(10)
    store.close()


def test_no_session_state_is_needed_so_a_pooler_may_stand_between(postgres, schema):
    pooler = Pooler(postgres.folder)
    try:
        stores = [PostgresStore(pooler.url, schema) for _ in range(3)]
        runs = [a_run(f"job{number}") for number in range(120)]
        with ThreadPoolExecutor(12) as threads:
            for number, run in enumerate(runs):
                threads.submit(stores[number % 3].record, [run])
                threads.submit(stores[number % 3].recent, 5)
        entered = [store.record(runs).result(20) for store in stores]

        assert entered == [{run.run_id for run in runs}] * 3
        assert [len(store.recent(1000)) for store in stores] == [120] * 3
        assert stores[0].run(runs[3].run_id) == runs[3]
        for store in stores:
            store.close()
    finally:
        pooler.close()


def test_odd_settings_of_a_role_change_nothing(postgres, schema):
    name = f"odd_{schema}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN SUPERUSER")
        for setting in ("timezone = 'Asia/Kathmandu'", "datestyle = 'SQL, DMY'", "intervalstyle = 'iso_8601'",
                        "search_path = nowhere", "synchronous_commit = off", "extra_float_digits = 0"):  # fmt: skip
            connection.execute(f"ALTER ROLE {name} SET {setting}")
    store = PostgresStore(postgres.url.replace("postgres@", f"{name}@"), schema)
    run = a_run(duration_seconds=0.1 + 0.2)
    store.record([run]).result(10)

    assert store.run(run.run_id) == run
    assert store.run(run.run_id).queued_at.utcoffset().total_seconds() == 0
    store.close()


def test_what_postgresql_has_no_text_for_is_replaced_and_no_end_is_lost(postgres, schema):
    store = PostgresStore(postgres.url, schema)
    run = a_run()
    store.record([run]).result(10)
    result = Result(
        Status.FAILED, message="nul \0 and half \udc80", details={"nan": float("nan"), "nul": "\0", "half": "\ud800"}
    )
    store.finish([finish(run, result, NOON, 1.5)]).result(10)
    found = store.run(run.run_id)

    assert (found.status, found.error_message) == (Status.FAILED, "nul \ufffd and half ?")
    assert found.details["nan"] == "NaN"
    store.close()


def test_the_daemons_role_needs_no_more_than_its_rows(postgres, schema):
    name = f"clerk_{schema}"
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    owners, daemons = (
        re.sub(
            r"\bschedulerd\b", schema, part.replace("schedulerd_owner", f"of_{schema}").replace("schedulerd_daemon", name)
        )
        for part in re.findall(r"```sql\n(-- The (?:owner|daemon)'s .*?)```", page, re.DOTALL)
    )
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(owners)
        PostgresStore(postgres.url.replace("postgres@", f"of_{schema}@"), schema).close()
        connection.execute(daemons)
    with psycopg.connect(postgres.url.replace("postgres@", f"of_{schema}@")) as connection:
        connection.execute(f"CREATE TABLE {schema}.of_an_upgrade (number integer)")
    store = PostgresStore(postgres.url.replace("postgres@", f"{name}@"), schema)
    run = a_run()
    store.record([run]).result(10)
    store.finish([ended(run)]).result(10)

    assert store.counts() == {"success": 1}
    assert store.delete_runs([run.run_id]).result(10) == [run.run_id]
    with psycopg.connect(store._access._url) as connection:
        connection.execute(f"INSERT INTO {schema}.of_an_upgrade VALUES (1)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(store._access._url) as connection:
        connection.execute(f"DROP TABLE {schema}.runs")
    store.close()


def test_a_role_that_may_not_make_the_schema_is_told_who_has_to(postgres, schema):
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE nobody_{schema} LOGIN")

    with pytest.raises(StoreError, match="let its owner run `schedulerctl db migrate`"):
        PostgresStore(postgres.url.replace("postgres@", f"nobody_{schema}@"), schema)


def test_a_schema_may_have_the_name_of_a_word_of_sql(postgres):
    store = PostgresStore(postgres.url, "user")

    assert store.record([a_run()]).result(10)
    assert len(store.recent(5)) == 1
    store.close()


def test_many_daemons_that_start_at_once_make_one_schema(postgres, schema):
    together = threading.Barrier(8)

    def start():
        together.wait(10)
        return PostgresStore(postgres.url, schema)

    with ThreadPoolExecutor(8) as threads:
        stores = [future.result(60) for future in [threads.submit(start) for _ in range(8)]]
    taken = [store.record([a_run()]).result(10) for store in stores]

    assert len([one for one in taken if one]) == 1
    for store in stores:
        store.close()


def test_the_schema_of_another_program_is_refused_and_left_alone(postgres, schema):
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute(f"CREATE TABLE {schema}.theirs (x int)")

    with pytest.raises(StoreError, match="another program"):
        PostgresStore(postgres.url, schema)


@pytest.mark.parametrize("version", range(len(load_migrations("postgres"))))
def test_from_every_version_the_migrations_lead_to_the_schema_file(postgres, schema, version):
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}; SET search_path = {schema}, pg_temp")
        if version:
            connection.execute("CREATE TABLE schedulerd_migrations (number integer PRIMARY KEY, name text NOT NULL)")
        for number, name, script in load_migrations("postgres")[:version]:
            connection.execute(script)
            connection.execute("INSERT INTO schedulerd_migrations VALUES (%s, %s)", (number, name))
        connection.execute(f"CREATE SCHEMA drawn_{schema}; SET search_path = drawn_{schema}, pg_temp")
        connection.execute(load_schema("postgres"))
    PostgresStore(postgres.url, schema).close()

    assert postgres.dump(schema) == postgres.dump(f"drawn_{schema}").replace(f"drawn_{schema}", schema)


def test_a_database_that_lost_its_schema_is_away_and_no_change_is_refused(postgres, schema):
    store = PostgresStore(postgres.url, schema)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"ALTER SCHEMA {schema} RENAME TO gone_{schema}")
        waiting = store.record([a_run()])
        until(lambda: store.trouble, "the trouble")
        connection.execute(f"ALTER SCHEMA gone_{schema} RENAME TO {schema}")
    assert waiting.result(10)
    store.close()


def test_a_commit_that_no_standby_has_confirmed_is_told(own_server, caplog):
    store = PostgresStore(own_server.url)
    with psycopg.connect(own_server.url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        connection.execute("SELECT pg_reload_conf()")
        until(lambda: connection.execute("SHOW synchronous_standby_names").fetchone() == ("nobody",), "the setting")
        waiting = store.record([a_run()])
        waits = (
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid <> pg_backend_pid()"
        )
        with caplog.at_level(logging.WARNING, "schedulerd"):
            until(lambda: connection.execute(waits).fetchall(), "the wait for a standby")
            assert waiting.result(10)
        connection.execute("SET synchronous_commit = local")
        connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        connection.execute("SELECT pg_reload_conf()")
    store.close()

    assert "canceling wait for synchronous replication" in caplog.text


@pytest.mark.parametrize(("url", "says"), [
    ("postgresql://me:hid-den@/x?no_such_option=1", "cannot be used"),
    (Secret("env", "NO_SUCH_VARIABLE"), "NO_SUCH_VARIABLE"),
])  # fmt: skip
def test_a_url_that_is_none_is_told_without_what_is_secret_in_it(url, says):
    with pytest.raises(Exception, match=says) as caught:
        PostgresStore(url)

    assert "hid-den" not in str(caught.value)
