"""A full disk under a real daemon (P34): jobs go on, health says so, and all of it is in the history when there is room."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schedulerd.client import Client, ClientError
from tests.support.daemon import RunningDaemon
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounting a small disk needs root and unshare"
)

TESTS = {}


def on_small_disk(test):
    """Run the body of a test in a mount namespace of its own, with a disk of 8 MB at `disk`."""
    TESTS[test.__name__] = test

    def call(tmp_path):
        script = f"mount -t tmpfs -o size=8m tmpfs {tmp_path}/disk && exec {sys.executable} -m tests.system.test_outage"
        (tmp_path / "disk").mkdir()
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", f"{script} {test.__name__} {tmp_path}"],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    call.__name__ = test.__name__
    return call


class World:
    """A daemon whose jobs write down, on another disk, that they ran."""

    def __init__(self, folder, state_is_there=False):
        self.folder, self.disk, self.said_in = folder, folder / "disk", folder / "said"
        self.said_in.mkdir()
        line = f'echo "$SCHEDULERD_RUN_ID" >> {self.said_in}/$SCHEDULERD_JOB_ID'
        jobs = {f"job{number}": {"every": "1s", "shell": line} for number in range(5)}
        jobs["fails"] = {"every": "1s", "shell": f"{line}; exit 3"}
        top = {"state_dir": str(self.disk / "state"), "outage_journal": "1M"} if state_is_there else {}
        self.daemon = RunningDaemon(folder, {"jobs": jobs, "store": f"sqlite://{self.disk}/history.db", **top})
        if state_is_there:
            self.daemon.client = Client(path=str(self.disk / "state" / "schedulerd.sock"), timeout=60)
        self.daemon.start()

    def fill(self):
        """Take the last byte."""
        with open(self.disk / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass

    def free(self):
        """Give the room back."""
        (self.disk / "filler").unlink()

    def own(self):
        """Return what health says of the scheduler, None while it says nothing."""
        try:
            return self.daemon.client.get("health")["scheduler"]
        except ClientError:
            return None

    def said(self):
        return [run_id for file in self.said_in.iterdir() for run_id in file.read_text().split()]

    def until_more_ran(self, count):
        more = len(self.said()) + count
        until(lambda: len(self.said()) >= more, f"{count} more runs")

    def check(self):
        """End, and compare the history with what the jobs say."""
        self.daemon.stop()
        connection = sqlite3.connect(self.disk / "history.db")
        rows = dict(connection.execute("SELECT run_id, status FROM runs"))
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        failed = set((self.said_in / "fails").read_text().split())
        said = self.said()
        assert len(said) == len(set(said))
        assert {run_id for run_id in said if rows.get(run_id) != ("failed" if run_id in failed else "success")} == set()
        started = {run_id for run_id, status in rows.items() if status not in ("skipped", "missed")}
        assert started == set(said)


@on_small_disk
def test_with_the_history_on_a_full_disk_jobs_go_on_and_all_of_it_is_told_later(folder):
    world = World(folder)
    world.until_more_ran(6)
    world.fill()
    began = time.monotonic()
    own = until(lambda: (own := world.own()) and own["store"] != "ok" and own["backlog"] and own, "degraded")
    assert time.monotonic() - began < 10
    assert "full" in own["store"]
    assert world.daemon.client.ask("GET", "/readyz").body["status"] == "degraded"
    world.until_more_ran(20)
    world.free()
    until(lambda: world.own()["store"] == "ok", "well again", 30)
    assert world.own()["backlog"] is None
    world.check()


@on_small_disk
def test_with_everything_on_a_full_disk_jobs_go_on_too(folder):
    world = World(folder, state_is_there=True)
    world.until_more_ran(6)
    world.fill()
    until(lambda: world.own()["store"] != "ok", "degraded")
    world.until_more_ran(20)
    world.free()
    until(lambda: world.own()["store"] == "ok", "well again", 30)
    world.check()


@on_small_disk
def test_a_daemon_that_is_killed_meanwhile_waits_for_its_history_and_loses_nothing(folder):
    world = World(folder)
    world.until_more_ran(6)
    world.fill()
    until(lambda: world.own()["store"] != "ok", "degraded")
    world.until_more_ran(12)
    world.daemon.kill()
    world.daemon.spawn()
    world.daemon.wait_for("STATUS=Waiting for the history")
    assert world.daemon.client.ask("GET", "/readyz").status == 503
    with pytest.raises(ClientError, match="waits for its history"):
        world.daemon.client.get("jobs")
    world.free()
    world.daemon.wait_for("READY=1")
    world.until_more_ran(6)
    world.check()


if __name__ == "__main__":
    name, place = sys.argv[1:]
    TESTS[name](Path(place))
