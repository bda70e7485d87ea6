"""Neither the history nor the outage journal can be written: what is due stays due, and what has ended is told later."""

import os
import threading
from datetime import timedelta

import pytest

from schedulerd.core.clock import SystemClock
from schedulerd.core.errors import StoreAwayError, StoreError
from schedulerd.core.models import Actor, CatchUp, Overlap, Pause, Role, Status
from schedulerd.store.outage_journal import OutageJournal
from schedulerd.store.outage_spool import OutageSpool
from schedulerd.store.sqlite.store import SqliteStore
from tests.store.test_outage import SIZE, World, ended
from tests.support.builders import NOON, a_job, a_run
from tests.support.engine import Engine
from tests.support.manual_clock import ManualClock
from tests.support.waiting import until

MINUTE = timedelta(minutes=1)


class Logs(World):
    """A history and a journal that the test takes away: SQLite's lock, and a descriptor that cannot be written."""

    def __init__(self, folder):
        super().__init__(folder)
        self._find_journal()

    def _find_journal(self):
        (self._number,) = (int(fd) for fd in os.listdir("/proc/self/fd") if self._is_journal(fd))
        self._kept = os.dup(self._number)

    def _is_journal(self, descriptor):
        try:
            return os.readlink(f"/proc/self/fd/{descriptor}") == self.journal
        except FileNotFoundError:
            return False

    def break_journal(self):
        read_only = os.open(self.journal, os.O_RDONLY)
        os.dup2(read_only, self._number, inheritable=False)  # what a remount as read-only does to it
        os.close(read_only)

    def mend_journal(self):
        os.dup2(self._kept, self._number, inheritable=False)

    def start_with(self, size):
        self.store.close()
        os.close(self._kept)
        os.unlink(self.journal)
        self.start(size)
        self._find_journal()

    def take_both_away(self):
        self.break_journal()
        self.take_away()

    def close(self):
        self.mend_journal()
        super().close()
        os.close(self._kept)


@pytest.fixture
def logs(tmp_path, monkeypatch):
    monkeypatch.setattr("schedulerd.store.sqlite.open.BUSY_SECONDS", 0.02)
    monkeypatch.setattr("schedulerd.store.outage.RETRY_SECONDS", 0.02)
    monkeypatch.setattr("schedulerd.store.outage_spool.REST_SECONDS", 0.02)
    made = Logs(tmp_path)
    yield made
    made.close()


def answered(engine):
    """Let all that was recorded so far be answered."""
    engine.store.save_jobs([]).exception(10)


def test_what_is_due_while_neither_can_be_written_follows_its_policy_when_one_is_back(logs):
    clock = ManualClock(NOON)
    jobs = [a_job("latest", every="1m"), a_job("all", every="1m", catch_up=CatchUp.ALL), a_job("none", every="1m",
            catch_up=CatchUp.NONE, misfire_grace_seconds=30.0), a_job("at", at="2026-03-10T12:03:00Z")]  # fmt: skip
    engine = Engine(logs.store, clock, jobs)
    logs.take_both_away()
    for _ in range(10):
        clock.advance(60)
        engine.planner.run_pending()
        answered(engine)

    assert engine.started == []
    assert engine.recorder.unwritten.count() == 31
    logs.mend_journal()
    until(lambda: logs.store.accepts_runs, "the journal")
    for _ in range(20):
        engine.advance(1)
    assert engine.recorder.unwritten.count() == 0
    logs.bring_back()

    started = [(job.job_id, run.scheduled_at) for job, run in engine.started]
    assert sorted(at for job_id, at in started if job_id == "all") == [NOON + number * MINUTE for number in range(1, 11)]
    assert [at for job_id, at in started if job_id != "all"] == [NOON + 10 * MINUTE, NOON + 10 * MINUTE, NOON + 3 * MINUTE]
    for job_id in ("latest", "none"):
        (missed, done) = engine.rows(job_id)
        assert (missed.status, missed.details["count"], done.status) == (Status.MISSED, 9, Status.SUCCESS)


def test_a_herd_that_does_not_fit_into_the_journal_is_started_as_far_as_it_does_and_the_rest_later(logs):
    logs.start_with(256 * 1024)
    clock = ManualClock(NOON)
    engine = Engine(logs.store, clock, [a_job(f"job{number}", every="1h") for number in range(1500)], ends_at_once=False)
    logs.take_away()
    clock.advance(3600)
    engine.planner.run_pending()
    answered(engine)

    fitted = len(engine.started)
    assert logs.store.backlog.size_bytes > 0.85 * 256 * 1024
    assert 0 < fitted < 1500
    assert engine.recorder.unwritten.count() == 1500 - fitted
    logs.bring_back()
    engine.advance(6)
    assert sorted(run.job_id for _, run in engine.started) == sorted(f"job{number}" for number in range(1500))
    assert engine.recorder.unwritten.count() == 0
    assert logs.store.counts() == {"running": 1500}


def test_of_a_group_that_does_not_fit_whole_the_first_rows_are_written_and_the_others_told(logs):
    logs.start_with(256 * 1024)
    logs.take_away()
    runs = [a_run(f"job{number}", details={"text": "x" * 1000}) for number in range(300)]
    error = logs.store.record(runs).exception(10)

    taken = [run.run_id for run in runs if run.run_id in error.taken]
    assert taken == [run.run_id for run in runs[: len(taken)]]
    assert error.left == {run.run_id for run in runs[len(taken) :]}
    assert isinstance(error, StoreAwayError)
    assert logs.store.finish([ended(run) for run in runs[:10]]).result(10) == frozenset()
    logs.bring_back()
    assert logs.store.counts() == {"running": len(taken) - 10, "success": 10}


def test_the_end_of_a_run_is_kept_until_it_can_be_written_and_only_then_forgotten(logs):
    engine = Engine(logs.store, SystemClock(), [a_job("a", cron="0 0 29 2 *", retries=1)], ends_at_once=False)
    engine.manual_runs.trigger("a", Actor("me", Role.ADMIN)).recorded.result(10)
    engine.forgotten = []
    logs.take_both_away()
    job, run = engine.started[0]
    engine.finish(job, run, Status.FAILED)
    until(lambda: logs.store.ends_in_memory == 1, "the end")
    with pytest.raises(StoreError, match="no run can be started now"):
        engine.manual_runs.trigger("a", Actor("me", Role.ADMIN))

    assert {logs.store.ends_in_memory for _ in range(20) if not threading.Event().wait(0.005)} == {1}
    assert engine.forgotten == []
    logs.mend_journal()
    until(lambda: engine.forgotten == [run.run_id], "its row")
    assert logs.store.ends_in_memory == 0
    logs.bring_back()
    assert [each.status for each in engine.rows("a")] == [Status.FAILED, Status.QUEUED]


def test_the_end_of_a_pause_is_logged_once_when_it_can_be_recorded(logs, caplog):
    caplog.set_level("INFO")
    clock = ManualClock(NOON)
    engine = Engine(logs.store, clock, [a_job("a", every="1h")])
    engine.pauses.set("a", Pause(NOON, "me", until=NOON + MINUTE)).result(10)
    logs.take_both_away()
    clock.advance(60)
    for _ in range(3):
        engine.tick(clock.now())
        answered(engine)
    assert "its pause has expired" not in caplog.text

    logs.mend_journal()
    logs.bring_back()
    engine.advance(1)
    assert caplog.text.count("job a: its pause has expired") == 1


def test_a_run_that_waits_and_cannot_be_claimed_waits_on(logs):
    engine = Engine(logs.store, SystemClock(), [a_job("a", cron="0 0 29 2 *", overlap=Overlap.QUEUE)], ends_at_once=False)
    for _ in range(2):
        engine.manual_runs.trigger("a", Actor("me", Role.ADMIN)).recorded.result(10)
    logs.take_both_away()
    state = engine.table.states["a"]
    with engine.table.lock:  # its turn comes, whatever made room
        first = next(iter(state.running))
        engine.run_queue.leave(state, first)
    engine.dispatcher.promote(state)
    answered(engine)
    until(lambda: state.waiting == 1, "the one that waits")

    assert not state.running
    assert len(engine.started) == 1
    logs.mend_journal()
    logs.bring_back()
    engine.dispatcher.promote_all()
    until(lambda: len(engine.started) == 2, "its start")
    assert logs.store.run(engine.started[1][1].run_id).status is Status.RUNNING


def test_what_is_caught_up_with_spaces_is_so_in_its_order_and_leaves_no_gap_for_a_kill(logs):
    clock = ManualClock(NOON)
    engine = Engine(logs.store, clock, [a_job("a", every="1m", catch_up=CatchUp.ALL)])
    logs.take_both_away()
    clock.advance(180)
    engine.planner.run_pending()
    answered(engine)
    logs.mend_journal()
    logs.bring_back()
    for _ in range(8):
        engine.advance(1)

    assert [run.scheduled_at for _, run in engine.started] == [NOON + number * MINUTE for number in (1, 2, 3)]


def test_what_the_plan_left_behind_while_it_went_on_is_decided_by_itself(logs):
    clock = ManualClock(NOON)
    engine = Engine(logs.store, clock, [a_job("latest", every="1m"), a_job("all", every="1m", catch_up=CatchUp.ALL)])
    first, second = NOON + MINUTE, NOON + 2 * MINUTE
    late = []
    put_back = engine.timetable.put_back
    engine.timetable.put_back = late.extend
    logs.take_both_away()
    clock.advance(60)
    engine.planner.run_pending()
    answered(engine)
    logs.mend_journal()
    logs.bring_back()
    engine.advance(60)
    put_back(late)
    engine.advance(5)

    assert [run.scheduled_at for _, run in engine.started] == [second, second, first]
    assert engine.said("all")[-1] == ("success", "schedule", first)
    assert engine.said("latest") == [("success", "schedule", second), ("missed", "schedule", first)]


def test_a_plan_that_is_given_up_meanwhile_is_told_when_it_can_be(logs):
    clock = ManualClock(NOON)
    engine = Engine(logs.store, clock, [a_job("a", every="1m"), a_job("b", every="1m")])
    (due,) = engine.timetable.overdue(["a"], NOON + MINUTE) or [None]
    clock.advance(60)
    (due,) = engine.timetable.overdue(["a"], clock.now())
    logs.take_both_away()
    engine.scheduler.give_up(due, "it was changed")
    answered(engine)
    logs.mend_journal()
    logs.bring_back()
    engine.advance()

    (row,) = engine.rows("a")[:1]
    assert (row.status, row.scheduled_at) == (Status.MISSED, NOON + MINUTE)


def test_what_a_change_of_its_job_ends_waits_no_more_and_the_next_outage_is_told_again(logs, caplog):
    clock = ManualClock(NOON)
    engine = Engine(logs.store, clock, [a_job("a", every="1m")])
    for _ in range(2):
        logs.take_both_away()
        clock.advance(180)
        engine.planner.run_pending()
        answered(engine)
        assert engine.recorder.unwritten.count()
        logs.mend_journal()
        logs.bring_back()
        engine.apply(a_job("a", every="2m"))
        engine.apply(a_job("a", every="1m"))
        assert engine.recorder.unwritten.count() == 0

    told = [record.getMessage() for record in caplog.records]
    assert sum("due jobs cannot be recorded" in text for text in told) == 2


def test_what_the_database_is_busy_with_does_not_fail_before_it_has_answered(tmp_path, monkeypatch):
    monkeypatch.setattr("schedulerd.store.outage.SOON_SECONDS", 0.02)
    monkeypatch.setattr("schedulerd.store.outage_spool.REST_SECONDS", 0.02)
    logs = Logs(tmp_path)
    logs.break_journal()
    logs.take_away()  # for less than SQLite waits for the lock
    recorded = logs.store.record([run := a_run()])
    until(lambda: logs.store.trouble, "the trouble")
    until(lambda: logs.store.alarm, "the journal's")

    assert not recorded.done()
    logs.release()
    assert recorded.result(10) == {run.run_id}
    logs.close()


def test_a_row_that_is_long_in_coming_starts_nothing_that_its_policy_gives_up_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr("schedulerd.store.outage.SOON_SECONDS", 0.02)
    logs, clock = Logs(tmp_path), ManualClock(NOON)
    engine = Engine(logs.store, clock, [a_job("latest", every="3h"), a_job("none", every="3h", catch_up=CatchUp.NONE)])
    logs.break_journal()
    logs.take_away()  # for less than SQLite waits for the lock
    clock.advance(3 * 3600)
    engine.planner.run_pending()
    until(lambda: logs.store.trouble, "the trouble")
    clock.advance(2 * 3600)
    logs.mend_journal()
    logs.bring_back()
    engine.settle()

    assert [run.job_id for _, run in engine.started] == ["latest"]
    (row,) = engine.rows("none")
    assert (row.status, row.error_message) == (Status.MISSED, "later than its misfire_grace")
    logs.close()


def test_an_error_that_nobody_expected_loses_nothing(logs, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(logs.store._outage, "write", lambda _batch: 1 / 0)
        recorded = logs.store.record([run := a_run()])
        assert recorded.result(10) == {run.run_id}
    until(lambda: logs.store.trouble is None, "the end of it")
    assert logs.store.run(run.run_id) == run


def test_a_row_that_the_database_refuses_does_not_cost_the_others_theirs(tmp_path):
    store = SqliteStore(str(tmp_path / "h.db"))
    good, bad = a_run("good"), a_run("bad", records_processed=1 << 70)
    error = store.record([good, bad]).exception(10)

    assert (error.taken, error.left) == ({good.run_id}, {bad.run_id})
    assert store.counts() == {"running": 1}
    store.close()


def test_a_time_that_may_have_been_started_before_the_clock_was_set_back_waits_for_the_history(logs):
    clock = ManualClock(NOON)
    engine = Engine(logs.store, clock, [a_job("daily", cron="1 12 * * *"), a_job("often", every="1m")])
    engine.advance(60)
    assert len(engine.started) == 2
    logs.take_away()
    clock.step(NOON)
    engine.planner.run_pending()
    for _ in range(14):
        clock.advance(5)
        engine.planner.run_pending()
        answered(engine)

    assert [job.job_id for job, _ in engine.started] == ["daily", "often", "often"]
    assert engine.recorder.unwritten.count() == 1
    logs.bring_back()
    for _ in range(3):
        engine.advance(5)
    assert [job.job_id for job, _ in engine.started] == ["daily", "often", "often"]
    assert engine.recorder.unwritten.count() == 0
    (row,) = engine.rows("daily")
    assert row.scheduled_at == NOON + MINUTE
    assert all(run.scheduled_at is not None for run in engine.rows("often"))


def test_a_time_that_a_wrong_clock_only_passed_over_is_started_when_the_history_is_back(logs):
    clock = ManualClock(NOON)
    engine = Engine(logs.store, clock, [a_job("daily", cron="1 12 * * *")])
    logs.take_away()
    clock.step(NOON + 3 * MINUTE)
    logs.break_journal()
    engine.planner.run_pending()
    answered(engine)
    clock.step(NOON)
    logs.mend_journal()
    logs.bring_back()
    for _ in range(14):
        engine.advance(5)

    assert [run.scheduled_at for _, run in engine.started] == [NOON + MINUTE]


def test_a_slow_history_and_a_clock_that_is_set_back_start_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("schedulerd.store.outage.SOON_SECONDS", 0.02)
    system, clock = SystemClock(), ManualClock(NOON)
    store = SqliteStore(str(tmp_path / "h.db"), system, spool=OutageSpool(OutageJournal(str(tmp_path / "j"), SIZE), system))
    engine = Engine(store, clock, [a_job("daily", cron="1 12 * * *")])
    engine.advance(60)
    apply = store._database.apply
    waits = threading.Event()
    monkeypatch.setattr(store._database, "apply", lambda changes: (waits.wait(0.2), apply(changes))[1])
    clock.step(NOON)
    engine.planner.run_pending()
    for _ in range(3):
        clock.advance(30)
        engine.planner.run_pending()
        store.save_jobs([]).exception(10)
    until(lambda: store.trouble is None, "the end of the outage")

    assert len(engine.started) == 1
    assert [run.scheduled_at for run in engine.rows("daily")] == [NOON + MINUTE]
    store.close()


def test_a_run_whose_row_could_not_be_written_is_not_claimed_from_the_journal(logs):
    clock = ManualClock(NOON)
    jobs = [a_job("held", cron="0 0 29 2 *", uses={"mutex m": 1}), a_job("daily", cron="1 12 * * *", uses={"mutex m": 1})]
    engine = Engine(logs.store, clock, jobs, ends_at_once=False)
    engine.manual_runs.trigger("held", Actor("me", Role.ADMIN)).recorded.result(10)
    clock.step(NOON + 3 * MINUTE)
    clock.step(NOON)
    engine.timetable.plan("daily", engine.table.states["daily"].job.trigger, NOON + 3 * MINUTE)  # it may be known
    logs.take_away()
    clock.advance(60)
    with engine.table.lock:
        engine.planner.run_pending()
        engine.run_queue.leave(engine.table.states["held"], engine.started[0][1].run_id)
        engine.dispatcher.promote_all()  # the mutex is free before the row is refused
    answered(engine)

    assert [run.job_id for _, run in engine.started] == ["held"]
    logs.bring_back()
    for _ in range(3):
        engine.advance(5)
    assert [run.job_id for _, run in engine.started] == ["held", "daily"]
    assert [run.scheduled_at for run in engine.rows("daily")] == [NOON + MINUTE]
