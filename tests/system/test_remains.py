"""What a run leaves behind, and what cannot be killed: the run, the log and health say so."""

import os
import shutil
import signal

import pytest

from schedulerd.cli.client import job_path, run_path
from tests.support.daemon import keepers
from tests.support.waiting import until

NOBODY = 65534
needs_setpriv = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")


def test_what_a_run_left_behind_and_was_killed_is_told(daemon):
    running = daemon({"j": {"shell": "sleep 1000 & until grep -q sleep /proc/$!/comm; do :; done"}}).start()
    done = running.client.post(job_path("j", "trigger")).body["result"]

    assert done["status"] == "success"
    (left,) = done["details"]["leftovers_killed"]
    assert left.startswith("sleep (process ")
    assert running.log().count(f"WARNING job j: run {done['run_id']}: killed its leftovers: {left}") == 1


@needs_setpriv
def test_what_the_daemon_may_not_kill_is_told_while_it_lasts_and_in_the_end(daemon):
    """A daemon that is not root may not kill a setuid program; nor may root without CAP_KILL that of another user."""
    as_nobody = f"setpriv --reuid {NOBODY} sleep 1000"
    running = daemon({
        "leader": {"shell": f"exec {as_nobody}", "timeout": "1s", "kill_grace": "0.1s"},
        "leaves": {"shell": f"{as_nobody} & while [ $(stat -c %u /proc/$!) = 0 ]; do sleep 0.02; done"},
    })  # fmt: skip
    running.prefix = ["setpriv", "--bounding-set", "-kill"]
    running.start()
    ids = {
        name: running.client.post(job_path(name, "trigger"), wait="false").body["run_id"] for name in ("leader", "leaves")
    }

    def told():
        return [each for each in running.client.get("health")["scheduler"]["troubles"] if "job leader" in each]

    (trouble,) = until(told, "a word in health")
    row = running.client.get(run_path(ids["leader"]))
    assert row["status"] == "running"
    assert row["details"]["not_killed"].endswith(f"runs as uid {NOBODY}: the daemon may not kill it")
    assert trouble == f"job leader: run {ids['leader']} cannot be ended: {row['details']['not_killed']}"
    assert running.log().count(f"ERROR   {trouble}") == 1

    running.kill()  # the next daemon is told, too
    running.start()
    assert until(told, "a word in health") == [trouble]

    (left,) = running.until_run("leaves", "success")
    assert left["details"]["not_killed"].endswith("the daemon may not kill it")
    assert running.log().count(f"ERROR   job leaves: run {ids['leaves']} cannot be ended: sleep (process") >= 1

    os.kill(int(trouble.partition("(process ")[2].partition(")")[0]), signal.SIGKILL)
    (ended,) = running.until_run("leader", "timed_out")
    assert ended["details"]["not_killed"] == row["details"]["not_killed"]
    assert running.client.get("health")["scheduler"]["troubles"] == []
    os.kill(int(left["details"]["not_killed"].partition("(process ")[2].partition(")")[0]), signal.SIGKILL)
    assert keepers(running.folder / "state")
