"""A full disk under a real daemon (P34): jobs go on, health says so, and all of it is in the history when there is room."""

import time

import pytest

from schedulerd.cli.client import ClientError, run_path
from tests.support.small_disk import SmallDisk, needs_root, on_disk_of
from tests.support.waiting import until

pytestmark = needs_root


@on_disk_of("8m")
def test_with_the_history_on_a_full_disk_jobs_go_on_and_all_of_it_is_told_later(folder):
    world = SmallDisk(folder)
    world.witness.until_more_ran(6)
    world.fill()
    began = time.monotonic()
    own = until(lambda: (own := world.own()) and own["store"] != "ok" and own["backlog"] and own, "degraded")
    assert time.monotonic() - began < 10
    assert own["store"] == f"the store cannot be written: {folder}/disk/history.db: database or disk is full"
    assert world.daemon.client.ask("GET", "/readyz").body["status"] == "degraded"
    world.witness.until_more_ran(20)
    newest = max(run_id for run_id, _ in world.witness.said())
    assert world.daemon.client.get(run_path(newest))["status"] in ("running", "success", "failed")
    world.free()
    until(lambda: world.own()["store"] == "ok", "well again", 30)
    assert world.own()["backlog"] is None
    world.check()


@on_disk_of("8m")
def test_with_everything_on_a_full_disk_jobs_go_on_too(folder):
    world = SmallDisk(folder, with_state=True)
    world.witness.until_more_ran(6)
    world.fill()
    until(lambda: world.own()["store"] != "ok", "degraded")
    world.witness.until_more_ran(20)
    world.free()
    until(lambda: world.own()["store"] == "ok", "well again", 30)
    world.check()


@on_disk_of("8m")
def test_a_daemon_that_is_killed_meanwhile_waits_for_its_history_and_loses_nothing(folder):
    world = SmallDisk(folder)
    world.witness.until_more_ran(6)
    world.fill()
    until(lambda: world.own()["store"] != "ok", "degraded")
    world.witness.until_more_ran(12)
    world.daemon.kill()
    world.daemon.spawn()
    world.daemon.wait_for("STATUS=Waiting for the store")
    assert world.daemon.client.ask("GET", "/readyz").status == 503
    with pytest.raises(ClientError, match="is waiting for the store"):
        world.daemon.client.get("jobs")
    world.free()
    world.daemon.wait_for("READY=1")
    world.witness.until_more_ran(6)
    world.check()
