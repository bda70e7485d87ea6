"""Histories in PostgreSQLs that are set up unlike what one expects: encodings, settings, standbys, poolers."""

import re
from itertools import count

import psycopg
import pytest

from schedulerd.core.clock import SystemClock
from schedulerd.core.errors import StoreAwayError, StoreError
from schedulerd.core.models import Result, Status, finish
from schedulerd.store.outage_journal import OutageJournal
from schedulerd.store.outage_spool import OutageSpool
from schedulerd.store.postgres.store import PostgresStore
from tests.support.builders import NOON, a_run
from tests.support.servers import PostgresServer, StandbyServer
from tests.support.waiting import until

NAMES = count()


@pytest.fixture
def made_with(postgres):
    """Make databases with options; return how to reach each."""

    def make(options):
        name = f"made_{next(NAMES)}"
        postgres.ask(f"CREATE DATABASE {name} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' {options}")
        made.append(name)
        return postgres.url.replace("/postgres?", f"/{name}?")

    made = []
    yield make
    for name in made:
        postgres.ask(f"DROP DATABASE {name} WITH (FORCE)")


def ended(run, message):
    return finish(run, Result(Status.FAILED, message=message, details={"list": [None, "€"]}), NOON, 1.5)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_has_no_room_for_every_text_is_refused_with_the_way_out(made_with, encoding):
    with pytest.raises(StoreError, match=f"has the encoding {encoding}.*CREATE DATABASE") as caught:
        PostgresStore(made_with(f"ENCODING '{encoding}'"))
    assert type(caught.value) is StoreError  # waiting would not help


@pytest.mark.parametrize("setting", ["client_encoding = LATIN1", "client_encoding = SQL_ASCII", "array_nulls = off"])
def test_what_a_database_sets_for_its_sessions_loses_no_text_and_no_end(made_with, setting):
    url = made_with("ENCODING 'UTF8'")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET {setting}")
    store = PostgresStore(url)
    run = a_run("jöb")

    assert store.record([run]).result(10) == {run.run_id}
    store.finish([ended(run, "5 €")]).result(10)
    assert store.run(run.run_id) == ended(run, "5 €")
    store.close()


def test_an_end_that_the_database_refuses_for_what_it_says_is_written_without_that(made_with, caplog):
    url = made_with("ENCODING 'UTF8'")
    store = PostgresStore(url)
    good, bad = a_run("good"), a_run("bad")
    after = a_run("bad", attempt=2, status=Status.QUEUED)
    store.record([good, bad]).result(10)
    with psycopg.connect(url) as connection:
        connection.execute("ALTER TABLE schedulerd.runs ADD CHECK (error_message NOT LIKE '%poison%')")

    assert store.finish([ended(good, "5 €")]).result(10) == frozenset()
    assert store.finish([ended(bad, "poison")], [after]).result(10) == {after.run_id}
    assert store.run(good.run_id) == ended(good, "5 €")
    found = store.run(bad.run_id)
    assert (found.status, found.finished_at, found.duration_seconds) == (Status.FAILED, NOON, 1.5)
    assert (found.details, "refused its message and details" in found.error_message) == ({}, True)
    assert "violates check constraint" in caplog.text
    store.close()


@pytest.fixture
def primary():
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def standby(primary):
    PostgresStore(primary.url).close()  # so that the standby has the schema
    server = StandbyServer(primary)
    yield server
    server.close()


def either(primary, standby, *options):
    """Return the URL of both, of which libpq takes the first that answers."""
    return "&".join([f"postgresql://postgres@/postgres?host={primary.folder},{standby.folder}", *options])


ANY = "target_session_attrs=any"


@pytest.mark.parametrize("options", [[], [ANY]])
def test_no_history_is_opened_on_a_standby_which_may_lack_what_was_started(primary, standby, options):
    primary.stop()
    for url in (either(primary, standby, *options), standby.url):
        with pytest.raises(StoreAwayError, match=r"standby|read-only"):
            PostgresStore(url)
    standby.promote()

    store = PostgresStore(either(primary, standby, *options))
    assert store.record([a_run()]).result(10)
    store.close()


@pytest.mark.parametrize("options", [[], [ANY]])
def test_when_the_primary_is_back_the_history_is_written_there(primary, standby, options, tmp_path):
    spool = OutageSpool(OutageJournal(str(tmp_path / "outage.journal"), 1 << 20), SystemClock())
    store = PostgresStore(either(primary, standby, *options), spool=spool)
    run = a_run()
    primary.stop()
    assert store.record([run]).result(10) == {run.run_id}
    until(lambda: re.search(r"standby|read-only", store.trouble or ""), "the look at the standby")
    primary.start()

    until(lambda: store.trouble is None, "the end of the outage")
    assert primary.ask("SELECT status FROM schedulerd.runs WHERE run_id = %s", run.run_id) == "running"
    store.close()


def test_a_session_that_became_read_only_is_not_kept(made_with):
    url = made_with("ENCODING 'UTF8'")
    PostgresStore(url).close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET default_transaction_read_only = on")
        store = PostgresStore(url)
        waiting = store.record([a_run()])
        until(lambda: "read-only" in (store.trouble or ""), "the trouble")
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER DATABASE {connection.info.dbname} RESET default_transaction_read_only")

    assert waiting.result(20)
    store.close()
