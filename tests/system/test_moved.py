"""A history whose files are moved, replaced or removed under a real daemon: nothing is lost or mixed up (P34, P37)."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from schedulerd.cli.main import main as schedulerctl
from schedulerd.store.sqlite.store import SqliteStore
from tests.support.builders import a_run
from tests.support.waiting import until

ENDS = ("stop", "kill")


def runs_in(path):
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {run_id for (run_id,) in connection.execute("SELECT run_id FROM runs")}


def filled(path, job_id, number):
    """Make a history with so many runs in its file; return them."""
    store = SqliteStore(str(path))
    ids = store.record([a_run(f"{job_id}{each}", details={"text": "x" * 500}) for each in range(number)]).result(20)
    store.close()
    return set(ids)


class World:
    """A daemon with a job that notes each run of it, so that what the history has lost is seen."""

    def __init__(self, folder, daemon):
        self.folder = folder
        note = f"echo $SCHEDULERD_RUN_ID >> {folder}/ticks"
        self.daemon = daemon({"tick": {"every": "1s", "shell": note}}, folder=folder)
        self.history = folder / "state" / "history.db"

    def ran(self):
        ticks = self.folder / "ticks"
        return set(ticks.read_text().split()) if ticks.exists() else set()

    def until_more_ran(self, number=2):
        before = len(self.ran())
        until(lambda: len(self.ran()) >= before + number, f"{number} more runs")

    def own(self):
        return self.daemon.client.get("health")["scheduler"]

    def until_away(self, words):
        until(lambda: words in self.own()["store"], words)

    def left(self):
        return sorted(self.history.parent.glob("history.db.left-*"))


@pytest.fixture
def world(daemon, tmp_path):
    return World(tmp_path / "daemon", daemon)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("before", [0, 5000])
def test_a_history_that_is_put_in_place_while_the_daemon_runs_stays_as_it_is(world, tmp_path, end, before, capsys):
    world.history.parent.mkdir(0o700, parents=True)
    if before:
        filled(world.history, "before", before)
    world.daemon.start()
    world.until_more_ran()
    early = world.ran()
    restored = filled(tmp_path / "restored.db", "restored", 3000)
    (tmp_path / "restored.db").rename(world.history)
    world.until_away("it was replaced by another file")
    getattr(world.daemon, end)()
    assert schedulerctl(["db", "status", f"sqlite://{world.history}"]) == 1
    assert "belongs to an earlier history" in capsys.readouterr().err
    world.daemon.start()
    world.daemon.until_run("tick", "success")
    (left,) = world.left()

    assert str(left) in world.own()["store_alarm"]
    assert str(left) in world.daemon.log()
    assert not list(world.history.parent.glob("*.damaged-*"))
    world.daemon.stop()
    assert restored <= runs_in(world.history)
    assert not early & runs_in(world.history)


@pytest.mark.parametrize("end", ENDS)
def test_a_history_that_was_moved_away_finds_its_newest_changes_again_as_the_alarm_says(world, tmp_path, end):
    world.daemon.start()
    world.until_more_ran()
    world.history.rename(tmp_path / "moved.db")
    world.until_away("its file was removed or renamed")
    getattr(world.daemon, end)()
    world.daemon.start()
    world.daemon.until_run("tick", "success")
    (left,) = world.left()
    history = left.with_name(left.name.removesuffix("-wal"))
    assert f"move that history to {history}" in world.own()["store_alarm"]
    world.daemon.stop()

    (tmp_path / "moved.db").rename(history)
    assert world.ran() <= runs_in(history) | runs_in(world.history)


def test_the_alarm_ends_when_what_was_left_is_moved_away(world, tmp_path):
    world.daemon.start()
    world.until_more_ran()
    world.history.rename(tmp_path / "moved.db")
    world.daemon.kill()
    world.daemon.start()
    assert not world.own()["is_well"]
    world.left()[0].rename(tmp_path / "moved.db-wal")

    assert world.own()["is_well"]


@pytest.mark.parametrize("end", ENDS)
def test_a_write_ahead_log_that_is_removed_is_noticed_and_loses_nothing(world, end):
    world.daemon.start()
    world.until_more_ran()
    world.history.with_name("history.db-wal").unlink()
    world.until_away("its write-ahead log was removed")
    world.until_more_ran()
    getattr(world.daemon, end)()
    world.daemon.start()
    world.daemon.until_run("tick", "success")

    assert world.own()["is_well"]
    world.daemon.stop()
    assert world.ran() <= runs_in(world.history)


@pytest.mark.parametrize("restores", ["file and log", "backup"])
def test_after_a_kill_a_copy_can_be_put_in_place(world, tmp_path, restores):
    world.daemon.start()
    world.until_more_ran()
    if restores == "backup":
        assert schedulerctl(["db", "backup", str(tmp_path / "history.db"), f"sqlite://{world.history}"]) == 0
        world.daemon.stop()
    else:
        world.daemon.kill()
        for name in ("history.db", "history.db-wal"):
            shutil.copy2(world.history.with_name(name), tmp_path)
    early = runs_in(tmp_path / "history.db") if restores == "backup" else world.ran()
    for path in world.history.parent.glob("history.db*"):
        if path.suffix != ".lock":
            path.unlink()
    for path in tmp_path.glob("history.db*"):
        path.rename(world.history.with_name(path.name))
    world.daemon.start()
    world.until_more_ran()

    assert world.own()["is_well"]
    assert not world.left()
    world.daemon.stop()
    assert early <= runs_in(world.history)


def test_after_a_kill_the_history_goes_on_where_it_was(world):
    world.daemon.start()
    world.until_more_ran()
    world.daemon.kill()
    world.daemon.start()
    world.until_more_ran()

    assert world.own()["is_well"]
    assert not world.left()
    world.daemon.stop()
    assert world.ran() <= runs_in(world.history)
