"""More runs than descriptors, and more callers: all runs are held and adopted, none is started twice, starts go on.

`SCHEDULERD_TEST_CHILDREN=5000` is the large size (with as many processes as that, and some minutes).
"""

import os
import resource
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from schedulerd.cli.client import ClientError
from schedulerd.host.descriptors import FEWEST
from tests.support.daemon import RunningDaemon, keepers
from tests.support.waiting import until

CHILDREN = int(os.environ.get("SCHEDULERD_TEST_CHILDREN", "120"))
SECONDS = 60.0 + CHILDREN / 5


def begin(daemon, limits: str, jobs, **top) -> RunningDaemon:
    running = daemon(jobs, **top)
    running.prefix = ["prlimit", f"--nofile={limits}"]
    return running.start()


def said(place: Path) -> list[int]:
    """Return the process ids of all children that were ever started."""
    return [int(pid) for pid in place.read_text().split()] if place.exists() else []


def end_all(place: Path) -> None:
    for pid in said(place):
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def adopt_all(daemon, tmp_path: Path, limits: str) -> None:
    """Start children, kill the daemon and its keepers, and let the next ones find them."""
    place = tmp_path / "said"
    script = f"echo $$ >> {place}; exec sleep 10000"
    job = {"startup": True, "command": ["/bin/sh", "-c", script], "on_abandoned": "rerun"}
    running = begin(daemon, limits, {f"j{number}": job for number in range(CHILDREN)})
    try:
        until(lambda: len(said(place)) == CHILDREN, "the children", SECONDS)
        until(lambda: len(running.client.get("running")) == CHILDREN, "their rows", SECONDS)
        before = {run["run_id"] for run in running.client.get("running")}
        assert running.process is not None
        running.process.send_signal(signal.SIGSTOP)  # neither sees the other go
        for pid in keepers(running.folder / "state"):
            os.kill(pid, signal.SIGKILL)
        running.kill()
        running.config_path.write_text(running.config_path.read_text().replace("startup: true", "cron: 0 0 1 1 *"))
        running.start()

        assert {run["run_id"] for run in running.client.get("running")} == before
        assert len(said(place)) == CHILDREN
        (first, *others) = said(place)
        os.killpg(first, signal.SIGKILL)
        until(lambda: len(said(place)) == CHILDREN + 1, "its end, and the other run", SECONDS)
        assert all(Path(f"/proc/{pid}").exists() for pid in others)
    finally:
        end_all(place)


def test_more_runs_than_descriptors_are_adopted_and_none_is_started_again(daemon, tmp_path):
    adopt_all(daemon, tmp_path, "64:64")


def test_many_runs_are_adopted_under_a_low_soft_limit(daemon, tmp_path):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    adopt_all(daemon, tmp_path, f"32:{hard}")


def test_callers_take_no_descriptor_that_starts_and_the_history_need(daemon, tmp_path):
    ticks = tmp_path / "ticks"
    job = {"every": "1s", "command": ["/bin/sh", "-c", f"echo $$ >> {ticks}"]}
    running = begin(daemon, "64:64", {"tick": job})
    with ExitStack() as stack:
        for _ in range(100):
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.connect(str(running.socket_path))
        until(lambda: "api: refusing connections" in running.log(), "the refusal")
        done = len(said(ticks))
        until(lambda: len(said(ticks)) >= done + 2, "two more runs")
    rows = until(lambda: answer(running), "an answer")

    assert {row["status"] for row in rows} <= {"success", "running"}
    assert "Too many open files" not in running.log()
    assert running.client.get("health")["scheduler"]["descriptors"]["trouble"] is None


def test_a_limit_under_which_nothing_can_work_is_told_at_the_start(daemon):
    running = daemon({"j": {"command": ["true"]}})
    running.prefix = ["prlimit", f"--nofile={FEWEST - 1}"]
    running.spawn()

    assert running.wait() == 1
    text = f"at least {FEWEST} descriptors are needed, and there are {FEWEST - 1}: raise LimitNOFILE="
    assert text in running.log()
    assert "Traceback" not in running.log()


def test_with_the_fewest_descriptors_that_it_takes_a_daemon_answers_several_callers_at_once(daemon):
    running = begin(daemon, str(FEWEST), {"tick": {"every": "1s", "command": ["true"]}})
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(running.socket_path))

        assert running.client.get("health")["scheduler"]["descriptors"]["limit"] == FEWEST


def answer(running: RunningDaemon) -> list[dict[str, Any]]:
    """Return the history of `tick`, nothing while the connection is refused."""
    try:
        return running.history("tick")
    except ClientError:
        return []
