"""Runs that wait, on a real daemon: whom they hold up, and whom not."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import RunningDaemon
from tests.support.waiting import until

STUCK = 100
LIMIT = 10
STARTS_AT_ONCE = 30  # while the other pool is full


@pytest.fixture
def running(tmp_path):
    stuck = {f"stuck{number}": {"startup": True, "shell": "exec sleep inf", "pool": "full"} for number in range(STUCK)}
    jobs = {
        **stuck,
        "free": {"shell": "true", "pool": "other"},
        "both": {"shell": "true", "uses": {"full": 1, "other": 2}},
        "each_second": {"cron": "* * * * * *", "shell": "true", "pool": "other"},
    }
    pools = {"full": LIMIT, "other": 2}
    made = RunningDaemon(tmp_path, {"jobs": jobs, "pools": pools, "shutdown_grace": "0.1s"})
    yield made.start()
    made.close()


def ctl(running, *words):
    command = [sys.executable, "-m", "schedulerd.cli", "--socket", str(running.socket_path), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2], check=True)
    return done.stdout + done.stderr


def test_a_pool_full_of_jobs_that_never_end_delays_no_other_pool(running):
    def stuck():
        return [run for run in running.client.get("running") if run["job_id"].startswith("stuck")]

    until(lambda: len(stuck()) == LIMIT, "a full pool")
    waiting = running.client.post("jobs/both/trigger", wait="false").body
    for _ in range(STARTS_AT_ONCE):
        assert running.client.post("jobs/free/trigger", wait="30s").body["status"] == "success"
    running.until_run("each_second", "success", 3)

    assert waiting["status"] == "queued"
    (full,) = running.client.get("jobs/both/why")["waits_for"]
    assert (full["kind"], full["name"]) == ("pool", "full")
    assert {run["run_id"] for run in stuck()} < set(full["run_ids"])  # and the one that comes before it
    told = ctl(running, "next", "both")
    assert f"run {waiting['run_id']} waits for pool full (10 of 10 slots in use, it needs 1), held by runs " in told
    assert "it waits for pool full (10 of 10 slots in use" in ctl(running, "why", "both")
    assert [run["status"] for run in running.history("both")] == ["queued"]
    assert [run["status"] for run in running.history("free", limit=100)] == ["success"] * STARTS_AT_ONCE
    assert not [run for run in running.history("each_second", limit=100) if run["status"] in ("missed", "skipped")]
    queued = [job for job in running.client.get("jobs") if job["job_id"].startswith("stuck") and job["queued"]]
    assert (len(stuck()), len(queued)) == (LIMIT, STUCK - LIMIT)
