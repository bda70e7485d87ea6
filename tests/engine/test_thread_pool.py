"""The thread pool: order, growth, slots, and errors that cost no thread."""

import queue
import threading

from schedulerd.core.clock import SystemClock
from schedulerd.engine.thread_pool import ThreadPool
from tests.support.builders import NOON
from tests.support.manual_clock import ManualClock
from tests.support.waiting import until


def test_tasks_of_one_thread_run_in_order():
    pool, seen = ThreadPool("p", 1, SystemClock()), queue.SimpleQueue()
    for number in range(100):
        pool.submit(seen.put, number)

    assert [seen.get(timeout=5) for _ in range(100)] == list(range(100))
    assert pool.close(5) == []


def test_a_task_never_waits_while_a_seat_is_free():
    pool, gate, started = ThreadPool("p", 3, SystemClock()), threading.Event(), queue.SimpleQueue()

    def block(number):
        started.put(number)
        gate.wait(10)

    for number in range(3):
        pool.submit(block, number)
        assert started.get(timeout=5) == number
    pool.submit(started.put, "after")
    assert started.empty()
    gate.set()
    assert started.get(timeout=5) == "after"
    pool.close(5)


def test_threads_are_made_when_they_are_needed_only():
    pool, done = ThreadPool("needed", 8, SystemClock()), queue.SimpleQueue()
    for _ in range(20):
        pool.submit(done.put, 1)
        done.get(timeout=5)
        # The thread that put it may not be free again yet, so a second one is fine; eight are not.

    assert sum(thread.name.startswith("needed-") for thread in threading.enumerate()) <= 2
    pool.close(5)


def test_an_error_in_a_task_costs_no_thread(caplog):
    pool, seen = ThreadPool("p", 1, SystemClock()), queue.SimpleQueue()
    pool.submit(lambda: 1 / 0)
    pool.submit(seen.put, "still here")

    assert seen.get(timeout=5) == "still here"
    assert "failed" in caplog.text
    pool.close(5)


def test_who_does_not_end_is_named():
    pool, gate, started = ThreadPool("slow", 1, SystemClock()), threading.Event(), threading.Event()
    pool.submit(lambda: (started.set(), gate.wait(10)))
    started.wait(5)

    assert pool.close(0.05) == ["slow-0"]
    gate.set()


def test_another_thread_takes_the_place_of_one_that_hangs_until_that_goes_on():
    clock, gate, seen = ManualClock(NOON), threading.Event(), queue.SimpleQueue()
    pool = ThreadPool("p", 1, clock)
    pool.submit(lambda: (seen.put("hangs"), gate.wait(10)))
    assert seen.get(timeout=5) == "hangs"
    pool.submit(seen.put, "the next")
    pool.replace_hung(2)
    assert seen.empty()
    clock.advance(2)
    pool.replace_hung(2)
    pool.replace_hung(2)

    assert seen.get(timeout=5) == "the next"
    assert pool.size == 2
    gate.set()
    until(lambda: pool.size == 1 and len(pool._threads) == 1, "the end of the one that hung")
    pool.submit(seen.put, "another")
    assert seen.get(timeout=5) == "another"
    assert pool.close(5) == []
