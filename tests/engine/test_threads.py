"""No thread is to be had: nothing that runs is lost, what needs one says so, and all goes on when there are some again."""

import asyncio
import queue
import threading

import pytest

from schedulerd.actions.probes.runner import Planned, probe_all
from schedulerd.api.responses import in_thread
from schedulerd.core.clock import SystemClock
from schedulerd.core.errors import BusyError, StartError, StoreAwayError
from schedulerd.engine.thread_pool import ThreadPool
from schedulerd.store.factory import store_at
from tests.support.builders import NOON
from tests.support.manual_clock import ManualClock
from tests.support.threads import no_more_threads


def test_a_pool_that_has_begun_takes_whatever_comes():
    pool, seen = ThreadPool("p", 2, SystemClock()), queue.SimpleQueue()
    pool.begin()
    with no_more_threads():
        for number in range(100):
            pool.submit(seen.put, number)
        found = [seen.get(timeout=10) for _ in range(100)]

    assert found == list(range(100))
    assert pool.close(5) == []


def test_a_pool_without_threads_says_so_and_works_when_there_are_some():
    pool, seen = ThreadPool("p", 2, SystemClock()), queue.SimpleQueue()
    with no_more_threads():
        with pytest.raises(StartError, match="can't start new thread"):
            pool.begin()
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(seen.put, "lost")
    pool.submit(seen.put, "done")

    assert seen.get(timeout=10) == "done"
    assert pool.close(5) == []


def test_a_thread_that_hung_stays_when_there_was_none_for_its_place():
    clock, gate, seen = ManualClock(NOON), threading.Event(), queue.SimpleQueue()
    pool = ThreadPool("p", 1, clock)
    pool.submit(lambda: (seen.put("hangs"), gate.wait(10)))
    assert seen.get(timeout=10) == "hangs"
    pool.submit(seen.put, "the next")
    clock.advance(2)
    with no_more_threads():
        pool.replace_hung(2)
        gate.set()
        assert seen.get(timeout=10) == "the next"

    assert pool.size == 1
    assert pool.close(5) == []


def test_a_probe_without_a_thread_is_unhealthy_and_costs_the_others_nothing():
    with no_more_threads():
        found = probe_all({"db": Planned(lambda _cut: {}, 5, "db")}, SystemClock())

    assert found["db"]["status"] == "unhealthy"
    assert found["db"]["error"] == "the probe could not be started: can't start new thread"


def test_a_request_that_needs_a_thread_is_told_to_come_again():
    async def ask():
        with no_more_threads(), pytest.raises(BusyError, match="no thread for the request"):
            await in_thread(int, "1")
        return await in_thread(int, "1")

    assert asyncio.run(ask()) == 1


def test_a_history_is_away_until_there_is_a_thread_for_it(tmp_path):
    store = store_at(f"sqlite:///{tmp_path}/history.db", None, SystemClock(), str(tmp_path), None, opens=False)
    with no_more_threads(), pytest.raises(StoreAwayError, match="can't start new thread"):
        store.open()
    store.open()

    assert store.history("a", 1) == []
    store.close()
