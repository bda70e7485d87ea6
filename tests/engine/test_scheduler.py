"""From due to done with a real store and a launcher that the test holds in its hand."""

import threading
from datetime import timedelta

import pytest

from schedulerd.core.models import Actor, Overlap, Pause, Result, Role, Status
from schedulerd.engine.due import DueJob
from schedulerd.engine.engine import Engine
from schedulerd.engine.launcher import Finished
from schedulerd.engine.state import JobState
from tests.support.builders import NOON, a_job, due_at
from tests.support.manual_clock import ManualClock

ADMIN = Actor("test", Role.ADMIN)
MINUTE = timedelta(minutes=1)


class Launcher:
    """Keeps what it is handed; ends runs when it is told to."""

    def __init__(self):
        self.launched = []
        self.fails = False

    def forget(self, run_ids):
        """Hear which ends are in the ledger, as the keepers do."""

    def launch(self, job, run, listener):
        if self.fails:
            raise RuntimeError("can't start new thread")
        self.launched.append((job, run))
        self.listener = listener

    def end(self, number):
        job, run = self.launched[number]
        run = self.listener.on_started(run, NOON)
        self.listener.on_finished([Finished(job, run, Result(Status.SUCCESS), NOON, 1.0)])


@pytest.fixture
def launcher():
    return Launcher()


@pytest.fixture
def engine(store, launcher):
    return Engine(store, ManualClock(NOON), launcher, "test")


@pytest.fixture
def table(engine):
    return engine.table


@pytest.fixture
def scheduler(engine):
    return engine.scheduler


def put(table, *jobs):
    for job in jobs:
        table.states[job.job_id] = JobState(job)


def due(*job_ids, at=NOON):
    return [DueJob(job_id, due_at(at), None) for job_id in job_ids]


def settle(store):
    """Return when everything that was handed to the store so far is durable, and its callbacks have run."""
    for _ in range(3):
        store.finish([]).result(10)


def test_a_row_is_durable_before_its_run_is_launched(table, store, scheduler, launcher):
    put(table, a_job("a"))
    seen = []
    launcher.launch = lambda _job, run, _listener: seen.append(store.run(run.run_id))
    scheduler.on_due(due("a"), NOON)
    settle(store)

    assert [run.status for run in seen] == [Status.RUNNING]


def test_an_occurrence_that_is_in_the_ledger_is_not_launched_again(table, store, scheduler, launcher):
    put(table, a_job("a", overlap=Overlap.ALLOW))
    scheduler.on_due(due("a"), NOON)
    scheduler.on_due(due("a"), NOON)
    settle(store)

    assert len(launcher.launched) == 1
    assert len(table.states["a"].running) == 1


def test_a_waiting_run_starts_when_the_one_before_has_ended(table, store, scheduler, launcher):
    put(table, a_job("a", overlap=Overlap.QUEUE))
    for number in range(3):
        scheduler.on_due(due("a", at=NOON + number * MINUTE), NOON)
    settle(store)
    assert len(launcher.launched) == 1
    for number in range(3):
        launcher.end(number)
        settle(store)

    assert [run.scheduled_at for _, run in launcher.launched] == [NOON + number * MINUTE for number in range(3)]
    assert store.counts() == {"success": 3}


def test_no_waiting_run_is_lost_when_ends_and_starts_meet(table, store, scheduler, launcher):
    put(table, a_job("a", overlap=Overlap.QUEUE))
    gate = threading.Event()
    real = store.record

    def slow_record(rows, asks):
        gate.wait(0.05)  # whoever ends a run meanwhile must wait for the lock
        return real(rows, asks)

    scheduler.on_due(due("a"), NOON)
    settle(store)
    store.record = slow_record
    thread = threading.Thread(target=scheduler.on_due, args=(due("a", at=NOON + MINUTE), NOON))
    thread.start()
    launcher.end(0)
    thread.join()
    settle(store)
    settle(store)

    assert len(launcher.launched) == 2
    assert store.counts() == {"success": 1, "running": 1}


def test_a_run_that_cannot_be_handed_over_has_failed_and_holds_nothing_up(table, store, scheduler, launcher):
    put(table, a_job("a"), a_job("b"))
    launcher.fails = True
    scheduler.on_due(due("a", "b"), NOON)
    settle(store)

    assert store.counts() == {"failed": 2}
    assert table.running() == []
    assert "can't start new thread" in table.states["a"].last_result.error_message


def test_a_job_that_cannot_be_decided_does_not_cost_the_others_theirs(table, store, scheduler, launcher):
    put(table, a_job("bad", misfire_grace_seconds=float("nan")), a_job("good"))
    undecided = scheduler.on_due(due("bad", "good"), NOON)
    settle(store)

    assert [left.each.job_id for left in undecided] == ["bad"]
    assert [job.job_id for job, _ in launcher.launched] == ["good"]


def test_a_repeat_of_a_key_answers_with_the_first_run_and_takes_no_turn(table, store, engine, scheduler, launcher):
    put(table, a_job("a"))
    first = engine.manual_runs.trigger("a", ADMIN, "key")
    settle(store)
    during = engine.manual_runs.trigger("a", ADMIN, "key")
    launcher.end(0)
    settle(store)
    after = engine.manual_runs.trigger("a", ADMIN, "key")

    ids = {asked.done.result(10).run_id for asked in (first, during, after)}
    assert ids == {launcher.launched[0][1].run_id}
    assert len(launcher.launched) == 1


def test_what_the_store_refuses_to_pause_is_not_paused(table, store, engine, scheduler, launcher):
    put(table, a_job("a"))
    engine.pauses.set("a", Pause(NOON, "test", "\ud800")).exception(10)

    assert table.states["a"].pause is None


def test_what_is_asked_for_does_not_wait_behind_what_a_pause_holds_back(table, store, engine, scheduler, launcher):
    put(table, a_job("a", overlap=Overlap.QUEUE))
    scheduler.on_due(due("a"), NOON)
    scheduler.on_due(due("a", at=NOON + MINUTE), NOON)
    settle(store)
    engine.pauses.set("a", Pause(NOON, "test")).result(10)
    launcher.end(0)
    settle(store)
    engine.manual_runs.trigger("a", ADMIN)
    settle(store)
    settle(store)

    assert [run.origin for _, run in launcher.launched] == ["schedule", "manual"]
    launcher.end(1)
    engine.pauses.set("a", None).result(10)
    settle(store)
    settle(store)
    assert [run.scheduled_at for _, run in launcher.launched][2:] == [NOON + MINUTE]


def test_who_was_told_at_the_stop_is_not_told_again(table, store, engine, scheduler, launcher):
    put(table, a_job("a"))
    asked = [engine.manual_runs.trigger("a", ADMIN, "key") for _ in range(2)]
    settle(store)
    engine.waiters.answer(table.running())
    launcher.end(0)
    settle(store)

    assert {each.done.result(1).run_id for each in asked} == {launcher.launched[0][1].run_id}
    assert table.running() == []


def test_who_waits_is_told_at_the_end_even_of_runs_that_go_on(table, store, engine, scheduler, launcher):
    put(table, a_job("a"))
    asked = engine.manual_runs.trigger("a", ADMIN)
    settle(store)
    engine.waiters.answer(table.running())

    assert asked.done.result(1).status is Status.RUNNING


def test_a_decision_that_could_not_be_recorded_holds_no_place(table, store, scheduler, launcher, monkeypatch):
    put(table, a_job("a"))
    with monkeypatch.context() as broken:
        broken.setattr(store, "record", lambda _rows, _asks: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scheduler.on_due(due("a"), NOON)
    assert not table.running()
    scheduler.on_due(due("a"), NOON)
    settle(store)

    assert launcher.launched
    assert [run.status for run in store.history("a", 10)] == [Status.RUNNING]


def test_a_job_that_cannot_be_admitted_holds_no_place_and_costs_the_others_nothing(
    table, store, engine, scheduler, launcher, monkeypatch
):
    put(table, a_job("bad", uses={"pool": 1}), a_job("good"))
    with monkeypatch.context() as broken:
        broken.setattr(engine.run_queue, "_sharers", lambda _state: 1 / 0)
        left = scheduler.on_due(due("bad", "good"), NOON)
    settle(store)

    assert [each.each.job_id for each in left] == ["bad"]
    assert [job.job_id for job, _ in launcher.launched] == ["good"]
    assert [run.job_id for run in table.running()] == ["good"]
