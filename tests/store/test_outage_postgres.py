"""A PostgreSQL that is stopped, killed and started again: runs go on in the journal, and are in the history once."""

import threading
from collections.abc import Iterator

import pytest

from schedulerd.core.clock import SystemClock
from schedulerd.core.errors import StoreAwayError, StoreError
from schedulerd.core.models import Result, Status, finish
from schedulerd.store.outage_journal import OutageJournal
from schedulerd.store.outage_spool import OutageSpool
from schedulerd.store.postgres.store import PostgresStore
from tests.support.builders import NOON, a_run
from tests.support.servers import PostgresServer
from tests.support.waiting import until


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that the test may treat as it likes."""
    made = PostgresServer()
    yield made
    made.close()


def opened(server, folder, **options):
    clock = SystemClock()
    return PostgresStore(
        server.url, spool=OutageSpool(OutageJournal(str(folder / "outage.journal"), 1 << 20), clock), **options
    )


def ended(run, status=Status.SUCCESS):
    return finish(run, Result(status), NOON, 1.0)


def test_while_the_server_is_down_runs_go_on_and_reads_fail_at_once(server, tmp_path):
    store = opened(server, tmp_path)
    before = a_run("before", status=Status.QUEUED)
    store.record([before]).result(20)
    server.stop()
    run = a_run()

    assert store.claim(before.run_id).result(20) is True
    assert store.record([run]).result(20) == {run.run_id}
    assert store.finish([ended(run)]).result(20) == frozenset()
    with pytest.raises(StoreError):
        store.history("job", 10)
    with pytest.raises(StoreAwayError, match="cannot be written now"):
        store.set_pause("job", None).result(20)
    assert store.backlog.changes == 3
    server.start()
    until(lambda: store.trouble is None, "the end of the outage")

    assert store.run(run.run_id) == ended(run)
    assert store.run(before.run_id).status is Status.RUNNING
    assert store.counts() == {"running": 1, "success": 1}
    store.close()


def test_a_server_that_is_silent_holds_nobody_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr("schedulerd.store.outage.SOON_SECONDS", 0.2)
    store = opened(server, tmp_path)
    waiting = a_run("waits", status=Status.QUEUED)
    store.record([waiting]).result(20)
    server.freeze()
    run = a_run()

    assert store.claim(waiting.run_id).result(2) is True
    assert store.record([run]).result(2) == {run.run_id}
    assert store.finish([ended(run)]).result(2) == frozenset()
    assert "not answered" in store.trouble
    server.freeze(False)
    until(lambda: store.trouble is None, "the end of the outage")

    assert {each.run_id: each.status for each in store.recent(10)} == {
        run.run_id: Status.SUCCESS, waiting.run_id: Status.RUNNING,
    }  # fmt: skip
    store.close()


def test_a_start_while_the_server_is_down_can_be_tried_again_and_writes_what_was_left(server, tmp_path):
    store = opened(server, tmp_path)
    server.stop()
    runs = [a_run(f"job{number}") for number in range(20)]
    store.record(runs).result(20)
    store.close()
    again = opened(server, tmp_path, opens=False)
    with pytest.raises(StoreAwayError):
        again.open()
    server.start()
    again.open()

    assert again.counts() == {"running": 20}
    assert again.backlog.changes == 0
    again.close()


def test_under_load_a_server_that_is_killed_again_and_again_loses_and_doubles_nothing(server, tmp_path):
    store = opened(server, tmp_path)
    is_over = threading.Event()
    runs, ends = [], []

    def load():
        while not is_over.wait(0.005):
            run = a_run(f"job{len(runs)}")
            if run.run_id in store.record([run]).result(30):
                runs.append(run)
                ends.append(store.finish([ended(run, Status.FAILED if len(runs) % 3 else Status.SUCCESS)]))

    working = threading.Thread(target=load)
    working.start()
    for number in range(6):
        count = len(runs)
        until(lambda count=count: len(runs) > count + 20, "runs")
        (server.kill if number % 2 else server.stop)()
        count = len(runs)
        until(lambda count=count: len(runs) > count + 20, "runs without the server")
        server.start()
    is_over.set()
    working.join()
    for end in ends:
        end.result(30)
    until(lambda: store.trouble is None, "the end of the outage")

    rows = {run.run_id: run.status for run in store.recent(100_000)}
    expected = {run.run_id: Status.FAILED if place % 3 else Status.SUCCESS for place, run in enumerate(runs, 1)}
    assert rows == expected
    assert sum(store.counts().values()) == len(runs)
    store.close()
