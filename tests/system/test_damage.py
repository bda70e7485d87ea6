"""A damaged history, a wrong file and a history that is away, under a real daemon (P37)."""

import os
import signal
import sqlite3
import time

import pytest

from schedulerd.cli.client import ClientError
from schedulerd.cli.main import main as schedulerctl
from tests.support.waiting import until

JOBS = {"tick": {"every": "1s", "command": ["true"]}}


def flip(path):
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(os.urandom(4096))


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path):
    path.write_text("no database\n")


@pytest.mark.parametrize("harm", [flip, cut, overwrite])
def test_a_damaged_history_is_set_aside_jobs_go_on_and_health_says_so(daemon, harm, capsys):
    running = daemon(JOBS).start()
    running.until_run("tick", "success")
    running.stop()
    history = running.folder / "state" / "history.db"
    assert not history.with_name("history.db-wal").exists()
    harm(history)
    damaged = history.read_bytes()
    began = time.monotonic()
    running.start()

    assert time.monotonic() - began < 10
    running.until_run("tick", "success")
    (aside,) = (running.folder / "state").glob("history.db.damaged-*")
    assert aside.read_bytes() == damaged
    health = running.client.get("health")
    assert health["status"] != "healthy"
    assert str(aside) in health["scheduler"]["store_alarm"]
    assert f"{aside} .recover" in running.log()
    assert schedulerctl(["--socket", str(running.socket_path), "health"]) != 0
    assert str(aside) in capsys.readouterr().out
    aside.unlink()
    assert running.client.get("health")["scheduler"]["is_well"]


@pytest.mark.parametrize("kind", ["text", "database", "folder"])
def test_what_is_not_ours_is_refused_with_the_setting_to_look_at(daemon, tmp_path, kind):
    theirs = tmp_path / "theirs"
    if kind == "folder":
        theirs.mkdir()
    elif kind == "text":
        theirs.write_text("root:x:0:0\n")
    else:
        connection = sqlite3.connect(theirs)
        connection.execute("CREATE TABLE theirs (x)")
        connection.close()
    running = daemon(JOBS, store=f"sqlite://{theirs}")
    running.spawn()

    assert running.wait() == 1
    assert "store:" in running.log()
    assert sorted(each.name for each in tmp_path.glob("theirs*")) == ["theirs", "theirs.lock"]


def test_a_damaged_outage_journal_is_kept_and_health_says_so(daemon):
    running = daemon(JOBS).start()
    running.until_run("tick", "success")
    lock = sqlite3.connect(running.folder / "state" / "history.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    until(lambda: (waits := running.client.get("health")["scheduler"]["backlog"]) and waits["changes"] >= 4, "a backlog")
    running.kill()
    journal = running.folder / "state" / "outage.journal"
    with journal.open("r+b") as file:
        file.seek(700)
        (byte,) = file.read(1)
        file.seek(700)
        file.write(bytes([byte ^ 1]))
    damaged = journal.read_bytes()
    lock.close()
    for _ in range(2):
        running.start()
        (aside,) = journal.parent.glob("outage.journal.damaged-*")
        assert aside.read_bytes() == damaged
        assert str(aside) in running.client.get("health")["scheduler"]["store_alarm"]
        running.stop()
    assert running.log().count(f"is kept as {aside}") == 1

    aside.unlink()
    assert running.start().client.get("health")["scheduler"]["is_well"]


def test_a_daemon_waits_for_a_history_that_is_locked_answers_503_and_can_be_stopped(daemon):
    running = daemon(JOBS).start()
    running.until_run("tick", "success")
    running.stop()
    lock = sqlite3.connect(running.folder / "state" / "history.db", isolation_level=None)
    lock.execute("PRAGMA locking_mode=EXCLUSIVE")
    lock.execute("BEGIN EXCLUSIVE")
    running.spawn()
    running.wait_for("STATUS=Waiting for the store")
    with pytest.raises(ClientError, match="is waiting for the store"):
        running.client.get("jobs")
    assert running.client.ask("GET", "/healthz").status == 200
    assert running.client.ask("GET", "/readyz").status == 503
    running.signal(signal.SIGTERM)
    assert running.wait() == 0

    running.spawn()
    running.wait_for("STATUS=Waiting for the store")
    lock.close()
    running.wait_for("READY=1")
    until(lambda: running.history("tick", limit=1), "the history")
