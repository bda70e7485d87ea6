"""A clock that was wrong for a while and is right again leaves no trace: on the whole engine, with a real store."""

from datetime import timedelta

import pytest

from schedulerd.core.models import CatchUp, JobRecord, Origin, Status
from schedulerd.core.trigger import Occurrence
from tests.support.builders import NOON, a_job
from tests.support.engine import Engine
from tests.support.manual_clock import ManualClock

SECOND, MINUTE, HOUR, AHEAD = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=400)


@pytest.fixture
def clock():
    return ManualClock(NOON - SECOND)


@pytest.fixture
def start(store, clock):
    """Make engines on one ledger and one clock; they end no run by themselves. A second one is a restart after kill -9."""
    return lambda *jobs, **more: Engine(store, clock, jobs, ends_at_once=False, **more)


def set_clock(engine, by):
    engine.clock.step(engine.clock.now() + by)
    engine.advance()


def end(engine, status=Status.SUCCESS):
    engine.settle()
    engine.finish(*engine.started[-1], status=status)
    engine.settle()


def succeeded_with_a_clock_that_was_ahead(start):
    engine = start(a_job(every="1m"))
    engine.advance(1)
    end(engine)
    set_clock(engine, AHEAD)
    end(engine)
    set_clock(engine, -AHEAD)
    engine.advance(60)
    return engine


def test_the_work_that_is_done_is_that_of_the_newest_success_which_is_not_to_come(start):
    engine = succeeded_with_a_clock_that_was_ahead(start)
    assert engine.last_success_at(engine.started[-1][1]) == NOON
    end(engine)

    assert engine.last_success_at(engine.started[-1][1]) == NOON + MINUTE


def test_a_restart_with_the_clock_right_again_finds_the_same_work_done(start):
    engine = start(*(job.job for job in succeeded_with_a_clock_that_was_ahead(start).table.states.values()))

    assert engine.table.states["job"].last_success.queued_at < NOON + HOUR


def test_the_result_that_is_shown_is_that_of_the_run_that_was_recorded_last(start):
    engine = succeeded_with_a_clock_that_was_ahead(start)
    end(engine, Status.FAILED)

    assert engine.table.states["job"].last_result.status is Status.FAILED
    assert engine.explanations.why("job", None)["outcome"] == "failed"
    again = start(a_job(every="1m"))
    assert again.table.states["job"].last_result.status is Status.FAILED


def test_the_next_time_that_is_shown_is_renewed(start):
    engine = start(a_job("daily", cron="0 3 * * *"))
    before = engine.table.states["daily"].next_run_at
    set_clock(engine, AHEAD)
    assert engine.table.states["daily"].next_run_at > NOON + AHEAD
    set_clock(engine, -AHEAD)

    assert engine.table.states["daily"].next_run_at == before
    assert engine.explanations.why("daily", "2026-03-12T03:00")["outcome"] == "coming"


def test_a_step_forward_is_why_times_were_missed_and_nothing_earlier(start):
    start(a_job("daily", cron="0 3 * * *")).clock.advance(60)
    again = start(a_job("daily", cron="0 3 * * *"))
    set_clock(again, AHEAD)

    assert again.rows("daily")[0].details["cause"] == "the clock was set forward by 400d"


def test_a_retry_waits_for_its_delay_and_not_for_the_time_of_a_clock_that_was_ahead(start):
    engine = start(a_job(at=NOON + AHEAD, retries=1, retry_delay_seconds=30.0))
    set_clock(engine, AHEAD + SECOND)
    end(engine, Status.FAILED)
    set_clock(engine, -AHEAD)
    engine.advance(29)
    assert len(engine.started) == 1
    engine.advance(1)

    assert engine.started[-1][1].origin is Origin.RETRY


def test_a_retry_that_is_found_at_a_start_waits_no_longer_either(start):
    engine = start(a_job(at=NOON + AHEAD, retries=1, retry_delay_seconds=30.0))
    set_clock(engine, AHEAD + SECOND)
    end(engine, Status.FAILED)
    engine.clock.step(NOON)
    again = start(a_job(at=NOON + AHEAD, retries=1, retry_delay_seconds=30.0))
    again.advance(30)

    assert [run.origin for _, run in again.started] == [Origin.RETRY]


def test_what_is_due_once_a_moment_later_is_so_after_the_clock_was_set_back(start):
    engine = start(a_job(after={"job": "other"}), a_job("other"))
    set_clock(engine, AHEAD)
    at = engine.clock.now() + 5 * SECOND
    engine.timetable.plan_once("job", Occurrence(at, at), Origin.AFTER, {})
    set_clock(engine, -AHEAD)
    engine.advance(4.9)
    assert engine.started == []
    engine.advance(0.1)

    assert [run.origin for _, run in engine.started] == [Origin.AFTER]


def test_what_was_missed_while_no_daemon_ran_is_caught_up_although_a_time_to_come_was_started(start):
    job = a_job(cron="0 * * * *", catch_up=CatchUp.ALL)
    engine = start(job)
    engine.advance(1)
    end(engine)
    set_clock(engine, AHEAD)
    end(engine)
    set_clock(engine, -AHEAD)
    engine.clock.advance(2.5 * 3600)
    again = start(job)
    for _ in range(3):
        again.advance(1)
    found = {run.scheduled_at for run in again.rows("job")}

    assert {NOON + HOUR, NOON + 2 * HOUR} <= found


def test_a_rule_that_was_made_by_a_clock_that_was_ahead_holds_from_now_on(start, store):
    engine = start(a_job("other"))
    set_clock(engine, AHEAD)
    engine.apply(a_job(cron="0 * * * *"))
    set_clock(engine, -AHEAD)
    engine.settle()
    assert store.jobs()["job"].planned_since == engine.clock.now()
    engine.clock.advance(2 * 3600)
    again = start(a_job(cron="0 * * * *"))
    again.advance()

    assert [run.scheduled_at for _, run in again.started] == [NOON + HOUR]


def test_a_rule_that_a_start_finds_to_be_of_a_time_to_come_holds_from_now_on(start, store):
    job = a_job(cron="0 * * * *")
    store.save_jobs([JobRecord("job", job.trigger.text, NOON + AHEAD)]).result(10)
    start(job)

    assert store.jobs()["job"].planned_since == NOON - SECOND
