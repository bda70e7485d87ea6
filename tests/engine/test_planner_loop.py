"""The planner's thread on the machine's own clock, with parts that fail."""

import threading
from datetime import timedelta

import pytest

from schedulerd.core.clock import SystemClock
from schedulerd.engine.planner import Planner
from schedulerd.engine.timetable import Timetable
from schedulerd.triggers.factory import IntervalTrigger
from tests.support.waiting import until


@pytest.fixture
def made():
    planners = []

    def make(on_due=lambda _batch, _now: [], **more):
        clock = SystemClock()
        planner = Planner(Timetable(clock), clock, on_due, **more)
        planner.timetable.plan("a", IntervalTrigger(1), clock.now() - timedelta(seconds=1))
        planners.append(planner)
        planner.start()
        return planner

    yield make
    for planner in planners:
        planner.stop()


def test_a_tick_that_fails_does_not_end_scheduling_and_is_logged_once(made, caplog):
    handed, turns = threading.Semaphore(0), []

    def fail(now):
        turns.append(now)
        raise OSError("no")

    made(lambda _batch, _now: handed.release() or [], on_tick=fail)
    assert handed.acquire(timeout=10)
    assert handed.acquire(timeout=10)

    assert len(turns) < 20
    assert [record.message for record in caplog.records] == ["the tick of the planner: unexpected error, continuing"]


def test_a_loop_that_cannot_schedule_does_not_spin_tells_so_and_feeds_no_watchdog(made, monkeypatch):
    tries, alive = [], threading.Semaphore(0)

    def fail(self):
        tries.append(None)
        raise OSError("no")

    with monkeypatch.context() as patched:
        patched.setattr(Planner, "run_pending", fail)
        planner = made(on_alive=alive.release)
        until(lambda: len(tries) > 2, "three tries")
        assert planner.trouble == "the planner: OSError: no"
        assert not alive.acquire(blocking=False)


def test_decisions_that_fail_feed_no_watchdog_until_one_goes_well(made, monkeypatch):
    monkeypatch.setattr("schedulerd.engine.planner.ERROR_DELAY", timedelta(seconds=0.5))
    mended, alive = threading.Event(), threading.Semaphore(0)

    def on_due(_batch, _now):
        if not mended.is_set():
            raise OSError("no")
        return []

    planner = made(on_due, on_alive=alive.release)
    until(lambda: planner.trouble, "the trouble")
    while alive.acquire(blocking=False):
        """What was said before."""
    assert not alive.acquire(timeout=1.5)  # a turn of the loop takes a second at most
    mended.set()

    assert alive.acquire(timeout=20)
    assert planner.trouble is None
