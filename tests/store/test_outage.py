"""While the history is away: runs are answered from the journal, and are in the history, once, when it is back."""

import os
import sqlite3
import threading
from datetime import timedelta

import pytest

from schedulerd.core.clock import SystemClock
from schedulerd.core.errors import NotFoundError, StoreAwayError, StoreError
from schedulerd.core.models import Actor, CatchUp, JobRecord, Overlap, Result, Role, Status, finish
from schedulerd.engine.state import MOST_ENDED, JobState, JobTable
from schedulerd.process.output import OutputFolder
from schedulerd.secrets.job_archive import JobArchive
from schedulerd.service.occurrences import STORE_UNREAD
from schedulerd.service.outputs import Outputs
from schedulerd.service.progress import Progress
from schedulerd.service.run_lookup import RunLookup
from schedulerd.service.runs import Runs
from schedulerd.store.outage_journal import OutageJournal
from schedulerd.store.outage_spool import RECORDED_BEFORE, OutageSpool
from schedulerd.store.sqlite.store import SqliteStore
from tests.support.builders import NOON, a_job, a_run
from tests.support.engine import Engine
from tests.support.manual_clock import ManualClock
from tests.support.waiting import until

SIZE = 1 << 20
MINUTE = timedelta(minutes=1)


class World:
    """A history with a journal, which the test takes away by holding SQLite's lock."""

    def __init__(self, folder):
        self.path, self.journal = str(folder / "history.db"), str(folder / "outage.journal")
        self.store = None
        self.start()
        self._other = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)

    def start(self, size=SIZE):
        clock = SystemClock()
        self.store = SqliteStore(self.path, clock, spool=OutageSpool(OutageJournal(self.journal, size), clock))

    def take_away(self):
        self._other.execute("BEGIN EXCLUSIVE")

    def release(self):
        self._other.execute("ROLLBACK")

    def bring_back(self):
        self.release()
        until(lambda: self.store.trouble is None, "the end of the outage")

    def close(self):
        self.store.close()
        self._other.close()


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr("schedulerd.store.sqlite.open.BUSY_SECONDS", 0.02)
    monkeypatch.setattr("schedulerd.store.outage.RETRY_SECONDS", 0.02)
    made = World(tmp_path)
    yield made
    made.close()


def ended(run, status=Status.SUCCESS, **changes):
    return finish(run, Result(status, **changes), NOON, 1.0)


def test_runs_are_entered_claimed_and_ended_without_the_history_and_are_in_it_when_it_is_back(world):
    before = a_run("before", status=Status.QUEUED)
    world.store.record([before]).result(10)
    world.take_away()
    run, waiting, retry = a_run(), a_run("b", status=Status.QUEUED), a_run("b", attempt=2, status=Status.QUEUED)

    assert world.store.record([run, waiting]).result(10) == {run.run_id, waiting.run_id}
    assert world.store.claim(before.run_id).result(10) is True
    assert world.store.claim(before.run_id).result(10) is False
    assert world.store.finish([ended(run)]).result(10) == frozenset()
    assert world.store.claim(waiting.run_id).result(10) is True
    assert world.store.finish([ended(waiting, Status.FAILED)], [retry]).result(10) == {retry.run_id}
    assert world.store.trouble == f"{world.path}: database is locked"
    assert world.store.backlog.changes == 6
    assert world.store.backlog.since is not None

    world.bring_back()
    assert world.store.backlog.changes == 0
    assert {run.status for run in world.store.recent(10)} == {Status.RUNNING, Status.SUCCESS, Status.FAILED, Status.QUEUED}
    assert world.store.run(before.run_id).status is Status.RUNNING
    assert world.store.run(run.run_id) == ended(run)
    assert world.store.counts() == {"running": 1, "success": 1, "failed": 1, "queued": 1}


def test_what_is_recorded_in_an_outage_has_its_place_whatever_the_clock_said_also_after_a_restart(world):
    ahead = timedelta(days=400)
    clock = [0 * MINUTE, ahead, ahead + MINUTE, MINUTE, 2 * MINUTE, 3 * MINUTE]
    runs = [a_run(str(number), at=NOON + passed) for number, passed in enumerate(clock)]
    for run in runs[:2]:
        world.store.record([run]).result(10)
    world.take_away()
    for run in runs[2:4]:
        world.store.record([run]).result(10)
    world.store.close()  # what is in the journal, the next daemon finds
    world.release()
    world.start()
    for run in runs[4:]:
        world.store.record([run]).result(10)

    assert [run.job_id for run in world.store.recent(10)] == ["5", "4", "3", "2", "1", "0"]


def test_pages_of_an_outage_follow_the_order_of_recording(world, tmp_path):
    runs = [a_run(at=at, scheduled_at=None) for at in (NOON, NOON + timedelta(days=400), NOON + MINUTE)]
    runs = [world.store.numbered(run) for run in runs]
    world.store.record(runs[:1]).result(10)
    table = JobTable()
    table.states["job"] = JobState(a_job(), running={run.run_id: run for run in runs[1:]})
    lookup = RunLookup(table, world.store)
    world.take_away()
    world.store.record(runs[1:]).result(10)

    def ids(before=None):
        return [run.run_id for run in lookup.page(10, before, None, "job")]

    newest_first = [run.run_id for run in runs[::-1]]
    assert ids() == newest_first
    assert [ids(before) for before in newest_first[:2]] == [newest_first[1:], newest_first[2:]]
    world.bring_back()


def test_an_occurrence_that_the_journal_has_is_not_entered_again(world):
    world.take_away()
    first, second = a_run(), a_run()
    by_key, again = (a_run(scheduled_at=None, idempotency_key="k") for _ in range(2))

    assert world.store.record([first]).result(10) == {first.run_id}
    assert world.store.record([second, first]).result(10) == {first.run_id}
    assert world.store.record([by_key]).result(10) == {by_key.run_id}
    assert world.store.record([again]).result(10) == frozenset()
    world.bring_back()
    assert {run.run_id for run in world.store.recent(10)} == {first.run_id, by_key.run_id}


def test_a_run_of_an_occurrence_that_the_history_has_is_kept_as_one_of_its_own(world):
    there = a_run()
    world.store.record([there]).result(10)
    world.take_away()
    started = a_run()
    world.store.record([started]).result(10)
    world.store.finish([ended(started, Status.FAILED)]).result(10)
    world.bring_back()

    found = world.store.run(started.run_id)
    assert (found.status, found.scheduled_at) == (Status.FAILED, None)
    assert world.store.run(there.run_id).status is Status.RUNNING
    assert len(world.store.recent(10)) == 2
    assert RECORDED_BEFORE.startswith("its occurrence")


@pytest.mark.parametrize("what", ["the file", "its folder", "the file, with another in its place"])
def test_a_history_that_is_moved_away_is_missed_and_gets_what_waits_when_it_is_put_back(tmp_path, monkeypatch, what):
    monkeypatch.setattr("schedulerd.store.outage.RETRY_SECONDS", 0.02)
    clock, place, aside = SystemClock(), tmp_path / "place", tmp_path / "aside"
    place.mkdir()
    path = place / "history.db"
    store = SqliteStore(str(path), clock, spool=OutageSpool(OutageJournal(str(tmp_path / "journal"), SIZE), clock))
    before, meanwhile = a_run("a"), a_run("b")
    store.record([before]).result(10)
    moved = place if what == "its folder" else path
    moved.rename(aside)
    if "another" in what:
        path.touch()

    assert store.record([meanwhile]).result(10) == {meanwhile.run_id}
    assert store.finish([ended(before)]).result(10) == frozenset()
    assert (str(path) in store.trouble, "schedulerd used it" in store.trouble) == (True, True)
    assert store.backlog.changes == 2
    assert "another" in what or not path.exists()
    path.unlink(missing_ok=True)
    aside.rename(moved)
    until(lambda: store.trouble is None, "the end of the outage")
    assert store.counts() == {"success": 1, "running": 1}
    store.close()


def test_what_starts_waits_and_ends_without_the_history_is_seen_and_cancelled_from_memory(world, tmp_path):
    archive = JobArchive(str(tmp_path / "keepsakes.json"))
    jobs = [a_job("one", overlap=Overlap.QUEUE, cron="0 0 29 2 *"), a_job("two")]
    engine = Engine(world.store, SystemClock(), jobs, ends_at_once=False)
    manual_runs, lookup = engine.manual_runs, RunLookup(engine.table, world.store)
    output = OutputFolder(str(tmp_path / "output"))
    outputs, progress = Outputs(lookup, output, archive, tuple), Progress(lookup, world.store, engine.clock, output)
    runs = Runs(lookup, progress, outputs, output, engine, manual_runs)
    world.take_away()
    going, waiting, over = (ask_for(manual_runs, job_id) for job_id in ("one", "one", "two"))
    engine.finish(*engine.started[1])
    engine.settle()

    assert [run["run_id"] for run in runs.running()] == [going]
    assert [runs.show(run_id)["status"] for run_id in (going, waiting, over)] == ["running", "queued", "success"]
    assert [run["run_id"] for run in runs.list_runs(10, None, None, "one")] == [waiting, going]
    assert [run["run_id"] for run in runs.list_runs(10, None, ["success"], None)] == [over]
    assert [run["run_id"] for run in runs.list_runs(1, waiting, None, None)] == [going]
    told = engine.explanations.why("two", None)
    assert (told["outcome"], told["run"]["run_id"]) == ("success", over)
    assert [each["kind"] for each in engine.explanations.why("one", None)["waits_for"]] == ["overlap"]
    assert STORE_UNREAD in engine.occurrences.next_times("one", 1, None)["notes"]
    assert manual_runs.watch(lookup.get(over)).result(10).status is Status.SUCCESS
    assert lookup.has_ended(lookup.get(over))
    assert engine.cancellation.cancel(waiting, "me").result(10).status is Status.CANCELLED
    assert engine.cancellation.cancel(going, "me").result(10).status is Status.RUNNING
    assert engine.ordered == [(going, "cancel")]
    assert lookup.get(waiting).status is Status.CANCELLED
    with pytest.raises(StoreAwayError, match=r"changes not written to the store yet, which may include its end"):
        lookup.get(a_run().run_id)

    world.bring_back()
    assert [lookup.get(run_id).status for run_id in (going, waiting, over)] == ["running", "cancelled", "success"]
    with pytest.raises(NotFoundError):
        lookup.get(a_run().run_id)
    engine.finish(*engine.started[0])
    engine.settle()
    assert engine.table.ended == {}
    assert lookup.get(going).status is Status.CANCELLED


def ask_for(manual_runs, job_id):
    return manual_runs.trigger(job_id, Actor("me", Role.ADMIN)).recorded.result(10).run_id


def test_of_what_ended_without_the_history_memory_keeps_the_newest():
    table = JobTable()
    runs = [a_run() for _ in range(MOST_ENDED + 3)]
    for run in runs:
        table.remember_ended([run], is_away=True)

    assert list(table.ended.values()) == runs[3:]
    assert (table.find(runs[0].run_id), table.find(runs[3].run_id)) == (None, runs[3])


def test_other_changes_wait_for_a_moment_and_then_fail_with_the_reason(world):
    world.store.save_jobs([JobRecord("job", "rule", NOON)]).result(10)
    world.take_away()
    with pytest.raises(StoreAwayError, match=r"cannot be written now: .*locked"):
        world.store.set_pause("job", None).result(10)
    world.bring_back()
    world.take_away()
    paused = world.store.save_jobs([JobRecord("job", "other", NOON)])
    world.bring_back()

    assert paused.result(10) is None
    assert world.store.jobs()["job"].rule == "other"


def test_what_the_journal_has_is_in_the_history_after_the_next_start(world):
    world.take_away()
    runs = [a_run(f"job{number}") for number in range(50)]
    world.store.record(runs).result(10)
    for run in runs[:25]:
        world.store.finish([ended(run)]).result(10)
    killed, world.store = world.store, None
    world._other.execute("ROLLBACK")
    world._other.execute("BEGIN IMMEDIATE")
    closing = threading.Thread(target=killed.close)
    closing.start()
    closing.join()
    world._other.execute("ROLLBACK")
    world.start()

    assert world.store.counts() == {"success": 25, "running": 25}
    assert world.store.backlog.changes == 0


def test_what_was_brought_into_the_history_already_is_not_there_twice(world):
    """The daemon may be killed between the commit and the emptying of the journal."""
    world.take_away()
    run, waiting = a_run(), a_run("b", status=Status.QUEUED)
    world.store.record([run, waiting]).result(10)
    world.store.claim(waiting.run_id).result(10)
    world.store.finish([ended(run)]).result(10)
    with open(world.journal, "rb") as file:
        kept = file.read()
    world.bring_back()
    world.store.finish([ended(waiting, Status.TIMED_OUT)]).result(10)
    world.store.close()
    with open(world.journal, "wb") as file:
        file.write(kept)
    world.start()

    assert world.store.counts() == {"success": 1, "timed_out": 1}
    assert world.store.run(run.run_id) == ended(run)


def test_while_it_is_away_a_start_says_so_and_can_be_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr("schedulerd.store.sqlite.open.BUSY_SECONDS", 0.02)
    SqliteStore(str(tmp_path / "h.db")).close()
    other = sqlite3.connect(tmp_path / "h.db", isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    store = SqliteStore(str(tmp_path / "h.db"), opens=False)
    with pytest.raises(StoreAwayError, match="locked"):
        store.open()
    other.close()
    store.open()

    assert store.record([run := a_run()]).result(10) == {run.run_id}
    store.close()


def test_a_full_journal_takes_no_new_runs_but_every_end_and_nothing_is_lost(world):
    world.store.close()
    world.start(size=256 * 1024)
    size = OutageJournal(world.journal, 1).size
    world.take_away()
    taken, error = [], None
    while error is None:
        run = a_run(f"job{len(taken)}", details={"text": "x" * 2000})
        error = world.store.record([run]).exception(10)
        taken += [run] if error is None else []
    assert isinstance(error, StoreError)
    assert "is full" in str(error)
    assert world.store.accepts_runs is False
    ends = [world.store.finish([ended(run, details={"more": "y" * 2000})]) for run in taken]
    until(lambda: sum(end.done() for end in ends) >= size * 0.05 / 4500, "ends in the reserve")
    assert not all(end.done() for end in ends)
    world.bring_back()
    for end in ends:
        end.result(10)

    assert world.store.counts() == {"success": len(taken)}
    assert world.store.accepts_runs is True


def test_a_journal_that_cannot_be_emptied_is_told_is_not_called_damaged_and_holds_nothing_up(world):
    descriptor = next(fd for fd in os.listdir("/proc/self/fd") if _place_of(fd) == world.journal)
    kept = os.dup(int(descriptor))
    world.take_away()
    run = a_run()
    world.store.record([run]).result(10)
    read_only = os.open(world.journal, os.O_RDONLY)
    os.dup2(read_only, int(descriptor), inheritable=False)  # what a file system that was remounted read-only does to it
    world.bring_back()

    assert "cannot be written" in world.store.alarm
    assert world.store.run(run.run_id) == run
    assert world.store.record([other := a_run("other")]).result(10) == {other.run_id}
    os.dup2(kept, int(descriptor), inheritable=False)
    until(lambda: world.store.alarm is None, "the end of the alarm")
    assert list(OutageJournal(world.journal, 1).records()) == []
    os.close(kept)
    os.close(read_only)


def _place_of(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:  # the one that listed them
        return None


def test_without_a_journal_what_is_handed_over_waits(tmp_path, monkeypatch):
    monkeypatch.setattr("schedulerd.store.sqlite.open.BUSY_SECONDS", 0.02)
    store = SqliteStore(str(tmp_path / "h.db"))
    other = sqlite3.connect(tmp_path / "h.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    run = a_run()
    waiting = store.record([run])
    until(lambda: store.trouble, "the trouble")
    assert store.accepts_runs is False
    other.execute("ROLLBACK")
    other.close()

    assert waiting.result(10) == {run.run_id}
    store.close()


def test_what_cannot_be_written_down_is_not_started_and_follows_its_policy_when_it_can(tmp_path, monkeypatch):
    monkeypatch.setattr("schedulerd.store.sqlite.open.BUSY_SECONDS", 0.02)
    clock = ManualClock(NOON)
    store = SqliteStore(str(tmp_path / "h.db"))
    engine = Engine(store, clock, [a_job("latest", every="1m"), a_job("all", every="1m", catch_up=CatchUp.ALL)])
    other = sqlite3.connect(tmp_path / "h.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    waiting = store.finish([])
    until(lambda: store.trouble, "the trouble")
    for _ in range(10):
        clock.advance(60)
        engine.planner.run_pending()
    assert engine.started == []
    other.execute("ROLLBACK")
    other.close()
    waiting.result(10)
    until(lambda: store.accepts_runs, "the end of the outage")
    for _ in range(20):
        engine.advance(1)

    started = [(job.job_id, run.scheduled_at) for job, run in engine.started]
    assert sorted(at for job_id, at in started if job_id == "all") == [NOON + number * MINUTE for number in range(1, 11)]
    assert [at for job_id, at in started if job_id == "latest"] == [NOON + 10 * MINUTE]
    assert [run.status for run in engine.rows("latest")] == [Status.MISSED, Status.SUCCESS]
    store.close()
