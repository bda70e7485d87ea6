"""A claim that was recorded and provably never started: the next daemon starts it, or says why it does not."""

from datetime import timedelta

import pytest

from schedulerd.core.models import Actor, CatchUp, Overlap, Pause, Role, Status
from schedulerd.engine.recovery import STARTED_LATE
from schedulerd.store.outage_spool import RECORDED_BEFORE
from tests.support.builders import NOON, a_job, a_run
from tests.support.engine import Engine
from tests.support.manual_clock import ManualClock

ADMIN = Actor("me", Role.ADMIN)
HOUR = timedelta(hours=1)


@pytest.fixture
def clock():
    return ManualClock(NOON - timedelta(seconds=1))


@pytest.fixture
def die(store, clock):
    """Let a daemon die when it has recorded what is due at noon, and has started nothing of it."""

    def act(*jobs):
        Engine(store, clock, jobs, ends_at_once=False).advance(1)

    return act


@pytest.fixture
def restart(store, clock):
    """Start the next daemon some seconds later."""

    def act(*jobs, after=0.0, proven=True, **more):
        clock.advance(after)
        return Engine(store, clock, jobs, ends_at_once=False, proven=proven, **more)

    return act


def only_row(engine, job_id="job"):
    (row,) = engine.rows(job_id)
    return row


def not_started_because(engine, why, job_id="job"):
    row = engine.rows(job_id)[0]
    return engine.started == [] and row.status is Status.ABANDONED and row.error_message.endswith(why)


@pytest.mark.parametrize("policy", [CatchUp.LATEST, CatchUp.ALL])
def test_it_is_started_by_the_next_daemon_as_the_same_run(die, restart, policy):
    job = a_job(every="1h", catch_up=policy)
    die(job)
    engine = restart(job, after=600)
    ((_, run),) = engine.started
    engine.finish(*engine.started[0])
    engine.settle()

    row = only_row(engine)
    assert (row.run_id, row.attempt, row.scheduled_at, row.status) == (run.run_id, 1, NOON, Status.SUCCESS)
    assert row.started_at == NOON + timedelta(seconds=600)
    assert row.details["cause"] == STARTED_LATE


def test_it_is_started_once_although_that_daemon_dies_too(die, restart):
    job = a_job(every="1h")
    die(job)
    restart(job, after=10)
    engine = restart(job, after=10)

    assert len(engine.started) == 1
    assert only_row(engine).scheduled_at == NOON


def test_it_is_left_when_nothing_proves_that_it_was_never_started(die, restart):
    job = a_job(every="1h")
    die(job)
    engine = restart(job, proven=False)

    assert engine.started == []
    assert only_row(engine).status is Status.ABANDONED


def test_without_catch_up_it_is_started_within_its_grace_only(die, restart):
    early = a_job("early", every="1h", catch_up=CatchUp.NONE)
    late = a_job("late", every="1h", catch_up=CatchUp.NONE, misfire_grace_seconds=5.0)
    die(early, late)
    engine = restart(early, late, after=10)

    assert [run.job_id for _, run in engine.started] == ["early"]
    assert only_row(engine, "late").error_message.endswith("not started now: later than its misfire_grace")


def test_a_newer_occurrence_stands_for_it(die, restart):
    job = a_job(every="1h")
    die(job)
    engine = restart(job, after=3 * 3600)
    assert not_started_because(engine, "a newer occurrence was started instead")
    engine.advance()

    assert [run.scheduled_at for _, run in engine.started] == [NOON + 3 * HOUR]


def test_with_catch_up_all_it_is_started_before_the_newer_ones(die, restart):
    job = a_job(every="1h", catch_up=CatchUp.ALL, overlap=Overlap.QUEUE)
    die(job)
    engine = restart(job, after=3600)
    engine.advance()
    engine.finish(*engine.started[0])
    engine.settle()

    assert [run.scheduled_at for _, run in engine.started] == [NOON, NOON + HOUR]


def test_it_is_not_started_when_it_is_too_old(die, restart):
    job = a_job(at="2026-03-10T12:00:00Z", catch_up_age_seconds=60.0)
    die(job)

    assert not_started_because(restart(job, after=90), "older than its catch_up_age of 1m")


def test_a_single_time_is_not_lost_however_late(die, restart):
    job = a_job(at="2026-03-10T12:00:00Z")
    die(job)

    assert len(restart(job, after=5 * 86400).started) == 1


def test_it_is_not_started_while_its_job_is_paused(die, restart, store):
    job = a_job(every="1h")
    die(job)
    store.set_pause("job", Pause(NOON, "me")).result(10)

    assert not_started_because(restart(job), "the job is paused")


@pytest.mark.parametrize("change", [{"every": "2h"}, {"every": "1h", "enabled": False}])
def test_it_is_not_started_by_another_rule(die, restart, change):
    die(a_job(every="1h"))

    assert not_started_because(restart(a_job(**change)), "its rule was changed before it was started")


def test_it_is_not_started_when_its_job_is_gone(die, restart):
    die(a_job(every="1h"))

    assert not_started_because(restart(a_job("other")), "its job was removed from the configuration")


def test_it_is_not_started_beside_another_run_of_its_job(restart, store):
    lives, claimed = a_run(at=NOON - HOUR), a_run()
    store.record([lives, claimed]).result(10)
    engine = restart(a_job(every="1h", catch_up=CatchUp.ALL), known=[lives.run_id])

    assert [run.run_id for _, run in engine.started] == [lives.run_id]
    assert store.run(claimed.run_id).error_message.endswith("another run of the job is still running")


def test_one_for_whose_occurrence_the_history_had_another_run_is_not_started(restart, store):
    job = a_job(every="1h")
    restart(job)
    store.record([a_run(scheduled_at=None, details={"reason": RECORDED_BEFORE})]).result(10)

    assert not_started_because(restart(job), "another run represents its occurrence")


def test_a_start_of_the_daemon_is_an_occurrence_of_its_own(die, restart):
    job = a_job(startup=True)
    die(job)
    engine = restart(job, after=10)
    engine.advance()

    assert [str(run.status) for run in engine.rows("job")] == ["abandoned", "running"]
    assert len(engine.started) == 1


def test_what_was_asked_for_by_hand_is_started_within_the_grace(restart):
    job = a_job(misfire_grace_seconds=60.0)
    engine = restart(job)
    engine.manual_runs.trigger("job", ADMIN)
    engine.settle()
    assert len(restart(job, after=50).started) == 1

    assert not_started_because(restart(job, after=20), "later than its misfire_grace")


def test_a_retry_is_started_again(restart, store, clock):
    job = a_job(every="1h", retries=1)
    engine = restart(job)
    engine.advance(1)
    engine.finish(*engine.started[0], status=Status.FAILED)
    engine.advance(10)
    assert [run.attempt for _, run in engine.started] == [1, 2]

    assert [run.attempt for _, run in restart(job, after=3600).started] == [2]


def test_its_slots_are_taken_by_it(die, restart):
    one, other = a_job("one", every="1h", uses={"pool": 1}), a_job("other", uses={"pool": 1})
    die(one)
    engine = restart(one, other, pools={"pool": 1})
    engine.manual_runs.trigger("other", ADMIN)
    engine.settle()
    assert only_row(engine, "other").status is Status.QUEUED
    engine.finish(*engine.started[0])
    engine.settle()

    assert [run.job_id for _, run in engine.started] == ["one", "other"]


def test_one_whose_deadline_has_passed_is_not_started(restart, clock):
    job = a_job(every="1h", retries=1, deadline_seconds=60.0)
    engine = restart(job)
    engine.advance(1)
    engine.finish(*engine.started[0], status=Status.FAILED)
    engine.advance(10)
    engine = restart(job, after=100)

    assert engine.started == []
    assert engine.rows("job")[-1].error_message.endswith("its deadline has passed")
