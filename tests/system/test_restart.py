"""The daemon dies, at any moment, and comes back: nothing is lost, nothing runs twice, every end is the true one.

`SCHEDULERD_TEST_KILLS=200` makes the kill loop as long as that.
"""

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schedulerd.engine.recovery import STARTED_LATE
from tests.support.daemon import RunningDaemon, keepers
from tests.support.waiting import until

KILLS = int(os.environ.get("SCHEDULERD_TEST_KILLS", "6"))
BYTES = 3000
JOBS = 4
DAEMON_POINTS = ("before_claim", "in_claim", "after_claim", "before_start", "in_result")
KEEPER_POINTS = ("after_fork", "before_result")
# Each run writes down its start and the code that it ends with, outside of the daemon, and some output in between.
SCRIPT = """
code=$(( $(printf %d 0x$(printf %s "$SCHEDULERD_RUN_ID" | tail -c 4)) % 5 ))
echo "$SCHEDULERD_RUN_ID start" >> LOG
head -c BYTES /dev/zero | tr '\\\\0' x
sleep 0.$code
echo "$SCHEDULERD_RUN_ID $code" >> LOG
exit $code
"""


def config(folder: Path, jobs: int = JOBS, **job) -> dict:
    script = SCRIPT.replace("LOG", str(folder / "log")).replace("BYTES", str(BYTES))
    rule = {"cron": "* * * * * *", "shell": script, "overlap": "allow", "catch_up": "all", "catch_up_spacing": 0, **job}
    return {"catch_up_spread": 0, "jobs": {f"job{number}": dict(rule) for number in range(jobs)}}


@pytest.fixture
def daemon(tmp_path):
    made = RunningDaemon(tmp_path, config(tmp_path))
    yield made
    made.close()


def rows_of(daemon: RunningDaemon) -> list[dict]:
    """Return all rows of all jobs."""
    rows = []
    for job in daemon.client.get("jobs"):
        page = daemon.history(job["job_id"], limit=100)
        while page:
            rows += page
            page = daemon.history(job["job_id"], limit=100, before=page[-1]["run_id"])
    return rows


def told(folder: Path) -> tuple[Counter, dict[str, int]]:
    """Return what the jobs themselves wrote down: their starts, and their exit codes."""
    starts, codes = Counter(), {}
    for line in (folder / "log").read_text().splitlines():
        run_id, word = line.split()
        if word == "start":
            starts[run_id] += 1
        else:
            codes[run_id] = int(word)
    return starts, codes


def check(daemon: RunningDaemon, folder: Path, lost: int = 0) -> None:
    """Hold the ledger against what the jobs wrote down."""
    rows = rows_of(daemon)
    starts, codes = told(folder)
    by_run = {row["run_id"]: row for row in rows}
    occurrences = Counter((row["job_id"], row["scheduled_at"]) for row in rows if row["attempt"] == 1)
    assert max(starts.values()) == 1
    assert max(occurrences.values()) == 1
    assert set(starts) <= set(by_run)
    abandoned = {row["run_id"] for row in rows if row["status"] == "abandoned"}
    assert len(abandoned & set(starts)) <= lost
    for run_id, code in codes.items():
        if run_id not in abandoned:
            assert (by_run[run_id]["exit_code"], by_run[run_id]["status"]) == (code, "failed" if code else "success")
            assert by_run[run_id]["details"]["output_bytes"] == BYTES


def rest(daemon: RunningDaemon, folder: Path, jobs: int = JOBS) -> None:
    """Let nothing start any more, and wait until nothing runs."""
    daemon.reload(config(folder, jobs, enabled=False))
    until(lambda: daemon.client.get("running") == [], "the last ends", 30)


def test_a_daemon_that_is_killed_at_any_moment_loses_nothing(daemon, tmp_path):
    chance = random.Random(4)
    daemon.start()
    for _ in range(KILLS):
        with suppress(AssertionError):
            daemon.wait_for("NEVER", chance.uniform(0.1, 1.6))
        daemon.kill()
        daemon.start()
    rest(daemon, tmp_path)

    assert sum(told(tmp_path)[0].values()) > KILLS
    check(daemon, tmp_path)


@pytest.mark.parametrize("point", DAEMON_POINTS)
def test_a_daemon_that_is_killed_at_the_worst_moment_loses_nothing(tmp_path, point):
    daemon = RunningDaemon(tmp_path, config(tmp_path), env={"SCHEDULERD_FAULT": f"{point}:kill:0.3"})
    try:
        for _ in range(2):
            daemon.spawn()
            daemon.wait(60)
        daemon._env.clear()
        daemon.start()
        until((tmp_path / "log").exists, "a start", 30)  # the kills may have come before any
        rest(daemon, tmp_path)
        check(daemon, tmp_path)
    finally:
        daemon.close()


@pytest.mark.parametrize("point", ["after_claim", "before_start"])
def test_what_a_daemon_was_about_to_start_when_it_was_killed_the_next_one_starts(tmp_path, point):
    at = (datetime.now(UTC) + timedelta(seconds=4)).isoformat()
    jobs = {"once": {"at": at, "shell": f"echo started >> {tmp_path}/log"}}
    daemon = RunningDaemon(tmp_path, {"jobs": jobs}, env={"SCHEDULERD_FAULT": f"{point}:kill:1"})
    try:
        daemon.spawn()
        daemon.wait(60)
        daemon._env.clear()
        daemon.start()
        (row,) = daemon.until_run("once", "success")
        assert (row["attempt"], row["details"]["cause"]) == (1, STARTED_LATE)
        assert (tmp_path / "log").read_text() == "started\n"
    finally:
        daemon.close()


@pytest.mark.parametrize("point", KEEPER_POINTS)
def test_a_keeper_that_is_killed_at_the_worst_moment_starts_nothing_twice(tmp_path, point):
    daemon = RunningDaemon(tmp_path, config(tmp_path), env={"SCHEDULERD_FAULT": f"{point}:kill:0.2"})
    try:
        daemon.start()
        until(lambda: daemon.log().count("another one takes its place") >= 3, "three keepers killed", 60)
        rest(daemon, tmp_path)
        check(daemon, tmp_path, lost=1000)
        lost = [row["error_message"] for row in rows_of(daemon) if row["status"] == "abandoned"]
        assert lost
        assert all("its keeper was killed" in why for why in lost)
    finally:
        daemon.close()


def faults(points, action: str) -> dict[str, str]:
    return {"SCHEDULERD_FAULT": ",".join(f"{point}:{action}:0.15" for point in points)}


def is_stopped(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


@contextmanager
def woken(daemon: RunningDaemon):
    """Let the daemon and its keepers go on whenever they have stopped; yields a count of that."""
    woken, is_over = Counter(), threading.Event()

    def wake():
        while not is_over.wait(0.1):
            for pid in (daemon.process.pid, *keepers(daemon.folder / "state")):
                if is_stopped(pid):
                    woken["daemon" if pid == daemon.process.pid else "keeper"] += 1
                    os.kill(pid, signal.SIGCONT)

    daemon.spawn()
    thread = threading.Thread(target=wake)
    thread.start()
    try:
        daemon.wait_for("READY=1")
        yield woken
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize(("points", "who"), [(DAEMON_POINTS, "daemon"), (KEEPER_POINTS, "keeper")])
def test_who_is_stopped_and_goes_on_starts_nothing_twice_and_loses_nothing(tmp_path, points, who):
    daemon = RunningDaemon(tmp_path, config(tmp_path), env=faults(points, "stop"))
    try:
        with woken(daemon) as count:
            until(lambda: count[who] >= 10, "ten stops", 60)
            rest(daemon, tmp_path)
        assert sum(told(tmp_path)[0].values()) > 0
        check(daemon, tmp_path)
    finally:
        daemon.close()


@pytest.mark.parametrize("points", [DAEMON_POINTS, KEEPER_POINTS])
def test_who_is_slow_starts_nothing_twice_and_loses_nothing(tmp_path, points):
    daemon = RunningDaemon(tmp_path, config(tmp_path), env=faults(points, "sleep:0.4"))
    try:
        daemon.start()
        until(lambda: (tmp_path / "log").exists() and sum(told(tmp_path)[0].values()) >= 20, "twenty starts", 60)
        rest(daemon, tmp_path)
        check(daemon, tmp_path)
    finally:
        daemon.close()


def test_a_daemon_that_is_stopped_and_then_killed_loses_nothing(tmp_path):
    daemon = RunningDaemon(tmp_path, config(tmp_path), env=faults(DAEMON_POINTS, "stop"))
    try:
        for _ in range(2):
            daemon.spawn()
            until(lambda: is_stopped(daemon.process.pid), "a stop", 60)
            daemon.kill()
        daemon._env.clear()
        daemon.start()
        until((tmp_path / "log").exists, "a start", 30)
        rest(daemon, tmp_path)
        check(daemon, tmp_path)
    finally:
        daemon.close()


@pytest.mark.parametrize("action", ["kill", "stop", "sleep:1"])
def test_what_befalls_a_daemon_in_a_reload_costs_no_run_and_the_new_jobs_are_there_at_last(tmp_path, action):
    daemon = RunningDaemon(tmp_path, config(tmp_path), env={"SCHEDULERD_FAULT": f"in_reload:{action}:1"})
    try:
        daemon.start()
        daemon.until_run("job0", count=2)
        daemon.write(config(tmp_path, JOBS + 1))
        daemon.signal(signal.SIGHUP)
        if action == "stop":
            until(lambda: is_stopped(daemon.process.pid), "the stop")
            daemon.signal(signal.SIGCONT)
        if action == "kill":
            assert daemon.wait() == -signal.SIGKILL
            daemon.start()
        else:
            daemon.wait_for("READY=1")
        daemon.until_run(f"job{JOBS}")
        daemon.kill()  # the fault would come at the next reload, too
        daemon._env.clear()
        daemon.start()
        rest(daemon, tmp_path, JOBS + 1)
        check(daemon, tmp_path)
    finally:
        daemon.close()


def test_a_timeout_is_kept_while_no_daemon_is_there(daemon, tmp_path):
    job = {"shell": "sleep 1000", "timeout": "1s", "kill_grace": "1s"}
    daemon.write({"jobs": {"slow": job}})
    daemon.start()
    daemon.client.post("jobs/slow/trigger", wait="false")
    until(lambda: list((tmp_path / "state" / "output").glob("*/*.log")), "the start")
    daemon.kill()
    journals = tmp_path / "state" / "keeper"
    until(lambda: any('"end"' in each.read_text() for each in journals.glob("*/journal")), "the end in a journal")
    daemon.write({"jobs": {"slow": {**job, "timeout": 0}}})  # who finishes the run knows nothing of its timeout any more
    daemon.start()

    (row,) = daemon.until_run("slow", "timed_out")
    assert row["duration_seconds"] >= 1
    assert row["error_message"] == "ended after its timeout"


def test_a_keeper_that_is_killed_costs_the_ends_of_its_runs_and_says_so(daemon, tmp_path):
    daemon.write({"jobs": {"slow": {"shell": f"echo $$ > {tmp_path}/pid; sleep 3; echo done > {tmp_path}/done"}}})
    daemon.start()
    run_id = daemon.client.post("jobs/slow/trigger", wait="false").body["run_id"]
    until((tmp_path / "pid").exists, "the start")
    for pid in keepers(tmp_path / "state"):
        os.kill(pid, signal.SIGKILL)

    (row,) = daemon.until_run("slow", "abandoned")
    assert row["run_id"] == run_id
    assert "keeper was killed" in row["error_message"]
    assert (tmp_path / "done").exists()  # it ran on, and no other run was started beside it meanwhile


def test_a_timeout_that_comes_under_the_next_keeper_is_a_timeout_and_tried_again(daemon, tmp_path):
    shell = f"echo $$ >> {tmp_path}/pid; sleep 60"
    daemon.write({"jobs": {"slow": {"shell": shell, "timeout": "2s", "kill_grace": 1, "retries": 1, "retry_delay": 0}}})
    daemon.start()
    daemon.client.post("jobs/slow/trigger", wait="false")
    until((tmp_path / "pid").exists, "the start")
    for pid in keepers(tmp_path / "state"):
        os.kill(pid, signal.SIGKILL)

    again, first = daemon.until_run("slow", "timed_out", count=2)
    assert (first["error_message"], first["exit_code"]) == ("ended after its timeout of 2 s", None)
    assert (again["origin"], first["details"]["retry"]) == ("retry", again["run_id"])


@pytest.mark.skipif(os.cpu_count() == 1, reason="there is one keeper on a single core")
def test_health_tells_of_a_keeper_that_cannot_be_started_again_while_jobs_go_on(daemon, tmp_path):
    daemon.write({"jobs": {"quick": {"overlap": "allow", "shell": "exit 0"}}})
    daemon.start()
    place = tmp_path / "state" / "keeper" / "0"
    (pid,) = [pid for pid in keepers(tmp_path / "state") if str(place) in Path(f"/proc/{pid}/cmdline").read_text()]
    (place / "lock").unlink()
    (place / "lock").mkdir()
    os.kill(pid, signal.SIGKILL)
    until(lambda: "cannot be started" in daemon.client.get("health")["scheduler"]["keepers"], "the trouble")

    assert daemon.client.get("health")["status"] == "degraded"
    assert {daemon.client.post("jobs/quick/trigger").body["status"] for _ in range(4)} == {"success"}
    (place / "lock").rmdir()
    until(lambda: daemon.client.get("health")["scheduler"]["keepers"] == "ok", "another keeper")
    assert daemon.client.get("health")["scheduler"]["is_well"]


def test_daemon_and_keepers_killed_together_are_told_apart_from_a_run_that_goes_on(daemon, tmp_path):
    daemon.write({"jobs": {"slow": {"shell": f"echo $$ > {tmp_path}/pid; sleep 4"}}})
    daemon.start()
    daemon.client.post("jobs/slow/trigger", wait="false")
    until((tmp_path / "pid").exists, "the start")
    both = keepers(tmp_path / "state")
    daemon.kill()
    for pid in both:
        os.kill(pid, signal.SIGKILL)
    daemon.start()

    assert daemon.job("slow")["is_running"]
    (row,) = daemon.until_run("slow", "abandoned")
    assert "it kept running" in row["error_message"]


def test_what_was_abandoned_is_run_again_with_a_larger_token_when_that_is_wanted(daemon, tmp_path):
    script = f"echo $SCHEDULERD_ATTEMPT $SCHEDULERD_FENCING_TOKEN >> {tmp_path}/tokens; sleep 2"
    daemon.write({"jobs": {"slow": {"shell": script, "on_abandoned": "rerun"}}})
    daemon.start()
    daemon.client.post("jobs/slow/trigger", wait="false")
    until((tmp_path / "tokens").exists, "the start")
    for pid in keepers(tmp_path / "state"):
        os.kill(pid, signal.SIGKILL)

    daemon.until_run("slow", "success")
    (first, one), (second, other) = (line.split() for line in (tmp_path / "tokens").read_text().splitlines())
    assert (first, second) == ("1", "2")
    assert int(one) < int(other)


def test_a_host_that_was_started_anew_is_told_apart(daemon, tmp_path):
    daemon.write({"jobs": {"slow": {"shell": f"echo $$ > {tmp_path}/pid; sleep 1000"}}})
    daemon.start()
    daemon.client.post("jobs/slow/trigger", wait="false")
    pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the start"))
    both = keepers(tmp_path / "state")
    daemon.kill()
    for each in [*both, pid]:
        os.kill(each, signal.SIGKILL)
    for journal in (tmp_path / "state" / "keeper").glob("*/journal"):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        journal.write_text(journal.read_text().replace(boot, "another-boot"))
    daemon.start()

    (row,) = daemon.until_run("slow", "abandoned")
    assert "the host was restarted" in row["error_message"]


@pytest.mark.parametrize("lives", [True, False])
def test_a_run_that_the_history_does_not_know_is_entered_and_watched_again(daemon, tmp_path, lives):
    os.mkfifo(tmp_path / "fifo")
    shell = f"touch {tmp_path}/started; read line < {tmp_path}/fifo; exit 3"
    daemon.write({"jobs": {"slow": {"shell": shell, "every": "1s", "overlap": "skip"}}})
    daemon.start()
    until((tmp_path / "started").exists, "its start: before, the keeper need not know of it")
    (before,) = daemon.until_run("slow", "running")
    daemon.kill()
    (tmp_path / "lost").mkdir()
    for path in (tmp_path / "state").glob("history.db*"):
        path.rename(tmp_path / "lost" / path.name)
    if not lives:
        (tmp_path / "fifo").write_text("on\n")
        keepers = list((tmp_path / "state" / "keeper").glob("*/journal"))
        until(lambda: any('"kind":"end"' in journal.read_text() for journal in keepers), "the end")
    daemon.start()
    if lives:
        daemon.until_run("slow", "skipped")
        assert [run["run_id"] for run in daemon.client.get("running")] == [before["run_id"]]
        (tmp_path / "fifo").write_text("on\n")

    (row,) = daemon.until_run("slow", "failed")
    same = ("run_id", "scheduled_at", "origin", "attempt", "node")
    assert [row[name] for name in same] == [before[name] for name in same]
    assert row["exit_code"] == 3
    assert "was not in the history" in row["details"]["reason"]
    assert f"run {row['run_id']} was not in the history" in daemon.log()


def test_a_daemon_that_is_stopped_for_an_upgrade_leaves_its_jobs_running(daemon, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    script = f"echo before; read line < {tmp_path}/fifo; echo $line; exit 3"
    daemon.write({"on_stop": "leave", "jobs": {"slow": {"shell": script}, "other": {"shell": "exit 4"}}})
    daemon.start()
    daemon.client.post("jobs/slow/trigger", wait="false")
    until(lambda: list((tmp_path / "state" / "output").glob("*/*.log")), "the start")
    assert daemon.stop() == 0
    daemon.start()
    (running,) = daemon.client.get("running")
    (tmp_path / "fifo").write_text("after\n")

    (row,) = daemon.until_run("slow", "failed")
    assert (row["run_id"], row["exit_code"]) == (running["run_id"], 3)
    assert row["error_message"] == "exit status 3; last output: before\nafter"
    assert daemon.client.post("jobs/other/trigger").body["result"]["exit_code"] == 4


def test_who_follows_a_run_sees_all_of_it_over_a_kill_of_the_daemon(daemon, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    daemon.write({"jobs": {"slow": {"shell": f"echo before; read line < {tmp_path}/fifo; echo $line; exit 3"}}})
    daemon.start()
    command = [sys.executable, "-m", "schedulerd.cli", "--socket", str(daemon.socket_path), "run", "slow", "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as following:
        assert following.stdout.readline() == b"before\n"
        daemon.kill()
        daemon.start()
        (tmp_path / "fifo").write_text("after\n")
        assert following.stdout.read() == b"after\n"

    assert following.returncode == 3


@pytest.mark.parametrize("way", ["kill", "stop"])
def test_who_waits_for_a_run_hears_of_its_end_over_a_restart_of_the_daemon(daemon, tmp_path, way):
    os.mkfifo(tmp_path / "fifo")
    daemon.write(
        {"on_stop": "leave", "jobs": {"slow": {"shell": f"read line < {tmp_path}/fifo; exit 3", "overlap": "queue"}}}
    )
    daemon.start()
    command = [sys.executable, "-m", "schedulerd.cli", "--socket", str(daemon.socket_path), "run", "slow"]
    with ExitStack() as stack:
        asking = []
        for status in ("running", "queued"):
            asking.append(stack.enter_context(subprocess.Popen(command, cwd=Path(__file__).parents[2])))
            daemon.until_run("slow", status)
        getattr(daemon, way)()
        daemon.start()
        for each in asking:
            (tmp_path / "fifo").write_text("on\n")
            assert each.wait(30) == 3


def test_a_run_is_told_up_to_when_its_job_has_done_its_work_also_after_a_restart(daemon, tmp_path):
    job = {"shell": 'echo "since $SCHEDULERD_LAST_SUCCESS_AT"; exit $SCHEDULERD_PARAM_CODE'}
    job |= {"params": {"code": {"type": "integer"}}, "env": {"SCHEDULERD_LAST_SUCCESS_AT": "the beginning"}}
    daemon.write({"jobs": {"job": job}})

    def run(code):
        row = daemon.client.post("jobs/job/trigger", {"params": {"code": code}}).body["result"]
        (path,) = (tmp_path / "state" / "output").glob(f"*/{row['run_id']}.log")
        return row["started_at"], path.read_text()

    daemon.start()
    first, told_first = run(0)
    told = [run(1)[1], run(1)[1]]
    daemon.kill()
    daemon.start()
    told.append(run(0)[1])

    assert told_first == "since the beginning\n"
    assert told == [f"since {first}\n"] * 3
    assert run(1)[1] != told[-1]
