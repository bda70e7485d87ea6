"""Start, reload, stop, and what is left after kill -9: a real daemon, told what to do by real signals."""

import fcntl
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from schedulerd.cli.client import PREFIX
from tests.support.daemon import keepers
from tests.support.waiting import until

F_SETPIPE_SZ = 1031  # fcntl(2)
TICK = {"tick": {"every": "1s", "shell": "true"}}


def occurrences(daemon):
    """Return every first attempt in the ledger as (job, scheduled_at)."""
    with sqlite3.connect(f"file:{daemon.folder}/state/history.db?mode=ro", uri=True) as connection:
        rows = connection.execute(
            "SELECT job_id, scheduled_at FROM runs WHERE scheduled_at IS NOT NULL AND attempt = 1"
        ).fetchall()
    connection.close()
    return rows


def marks(path):
    """Return what the jobs themselves wrote down: the occurrence of each start."""
    return path.read_text().split() if path.exists() else []


def marking(path, then="true"):
    return {"every": "1s", "shell": f'echo "$SCHEDULERD_SCHEDULED_AT" >> {path}; {then}'}


def test_it_says_ready_and_stopping_and_where_its_doors_are(daemon):
    running = daemon(TICK, api={"listen": "127.0.0.1:0"}).start()
    running.until_run("tick", "success")
    running.signal(signal.SIGTERM)
    running.wait_for("STOPPING=1")

    assert running.wait() == 0
    log = running.log()
    assert f"listening on unix socket {running.socket_path}" in log
    assert "listening on http://127.0.0.1:" in log
    assert f"created the first token, with the role admin, in {running.folder}/state/admin.token" in log
    assert not running.socket_path.exists()


def test_the_watchdog_is_fed_by_the_loop(daemon):
    running = daemon(TICK, env={"WATCHDOG_USEC": "2000000"})
    running.spawn()
    for _ in range(3):
        running.wait_for("WATCHDOG=1")


def test_the_watchdog_is_not_fed_when_the_loop_is_stuck_though_all_else_lives(daemon, tmp_path):
    env = {"WATCHDOG_USEC": "500000", "SCHEDULERD_FAULT": "before_claim:sleep:1000:1"}
    running = daemon({"tick": marking(tmp_path / "marks")}, env=env).start()

    def is_fed():
        with suppress(AssertionError):
            running.wait_for("WATCHDOG=1", seconds=5)
            return True
        return False

    until(lambda: not is_fed(), "the end of the pings, at the first time of the job", 60)
    assert running.process.poll() is None
    assert running.client.ask("GET", "/healthz").status == 200

    running.signal(signal.SIGABRT)  # as systemd does then, before it starts the daemon again
    assert running.wait() == -signal.SIGABRT
    running._env.pop("SCHEDULERD_FAULT")
    running.start()
    until(lambda: marks(tmp_path / "marks"), "a start")
    for _ in range(3):
        running.wait_for("WATCHDOG=1")


def test_sigterm_lets_short_runs_end_and_ends_long_ones(daemon, tmp_path):
    jobs = {
        "short": {"shell": f"sleep 1; echo done > {tmp_path}/short"},
        "long": {"shell": f"trap 'exit 9' TERM; echo started > {tmp_path}/long; sleep 100 & wait"},
        "stubborn": {
            "shell": f"trap '' TERM; echo started > {tmp_path}/stubborn; while :; do sleep 1; done",
            "kill_grace": "1s",
        },
        "tick": marking(tmp_path / "marks"),
    }
    running = daemon(jobs, shutdown_grace="2s").start()
    for name in ("short", "long", "stubborn"):
        running.client.post(f"jobs/{name}/trigger", wait="false")
    until((tmp_path / "stubborn").exists, "the stubborn job")
    until((tmp_path / "long").exists, "the long job")
    running.signal(signal.SIGTERM)
    running.wait_for("STOPPING=1")
    assert running.client.ask("POST", "/api/v1/scheduler/jobs/short/trigger").status == 503
    assert running.client.ask("GET", "/readyz").status == 503
    started = len(marks(tmp_path / "marks"))

    assert running.wait() == 0
    assert len(marks(tmp_path / "marks")) == started
    running.start()
    found = {name: running.history(name)[0] for name in ("short", "long", "stubborn")}
    assert {name: row["status"] for name, row in found.items()} == {
        "short": "success",
        "long": "cancelled",
        "stubborn": "cancelled",
    }
    assert found["stubborn"]["exit_code"] == -9
    assert "daemon was stopped" in found["long"]["error_message"]


def test_a_second_signal_does_not_wait(daemon):
    running = daemon({"long": {"shell": "sleep 100"}}, shutdown_grace="100s").start()
    running.client.post("jobs/long/trigger", wait="false")
    until(lambda: running.job("long")["is_running"], "the run")
    running.signal(signal.SIGTERM)
    running.wait_for("STOPPING=1")

    assert running.stop(20) == 0


def test_who_waits_for_a_run_gets_its_end_although_the_daemon_stops(daemon):
    running = daemon({"long": {"shell": "sleep 100"}}, shutdown_grace="1s").start()
    asking = subprocess.Popen(
        [sys.executable, "-m", "schedulerd.cli", "--socket", str(running.socket_path), "run", "long"],
        stdout=subprocess.PIPE,
    )
    until(lambda: running.job("long")["is_running"], "the run")
    running.signal(signal.SIGTERM)
    out, _ = asking.communicate(timeout=20)

    assert b"cancelled" in out
    assert asking.returncode == 128 + signal.SIGTERM


# Reload


def test_a_reload_is_a_difference_and_leaves_the_rest_alone(daemon, tmp_path):
    jobs = {"a": TICK["tick"], "b": {"every": "1h", "shell": "sleep 100"}, "gone": TICK["tick"]}
    running = daemon(jobs).start()
    running.client.post("jobs/a/pause", {"reason": "kept"})
    running.client.post("jobs/b/trigger", wait="false")
    until(lambda: running.job("b")["is_running"], "the run")
    running.until_run("gone", "success")
    running.reload({"jobs": {"a": TICK["tick"], "b": {**jobs["b"], "description": "new"}, "new": TICK["tick"]}})

    listed = {job["job_id"]: job for job in running.client.get("jobs")}
    assert list(listed) == ["a", "b", "new"]
    assert listed["a"]["pause"]["reason"] == "kept"
    assert (listed["b"]["description"], listed["b"]["is_running"]) == ("new", True)
    assert running.client.ask("GET", "/api/v1/scheduler/jobs/gone").status == 404
    running.until_run("new", "success")
    assert "reloaded: 1 added (new), 1 changed (b), 1 removed (gone)" in running.log()


def test_a_job_that_was_taken_away_runs_to_its_end(daemon, tmp_path):
    running = daemon({"long": {"shell": f"sleep 2; echo done > {tmp_path}/done"}}).start()
    running.client.post("jobs/long/trigger", wait="false")
    until(lambda: running.client.get("running"), "the run")
    running.reload({"jobs": TICK})

    assert [run["job_id"] for run in running.client.get("running") if run["job_id"] == "long"] == ["long"]
    until((tmp_path / "done").exists, "the end of the run")
    until(lambda: "long" not in [run["job_id"] for run in running.client.get("running")], "its end in the API")


def test_runs_that_wait_are_cancelled_when_their_job_is_taken_away(daemon):
    running = daemon({"q": {"overlap": "queue", "shell": "sleep 2"}, "tick": TICK["tick"]}).start()
    running.client.post("jobs/q/trigger", wait="false")
    waiting = subprocess.Popen(
        [sys.executable, "-m", "schedulerd.cli", "--socket", str(running.socket_path), "run", "q"],
        stdout=subprocess.PIPE,
    )
    until(lambda: running.job("q")["queued"], "the waiting run")
    running.reload({"jobs": TICK})

    assert b"its job was removed from the configuration" in waiting.communicate(timeout=10)[0]
    until(lambda: not [run for run in running.client.get("running") if run["job_id"] == "q"], "the end of the other")
    assert running.stop(10) == 0


def test_a_job_that_is_back_while_it_runs_does_not_run_twice(daemon):
    jobs = {"long": {"every": "1s", "shell": "sleep 3"}, "tick": TICK["tick"]}
    running = daemon(jobs, shutdown_grace=0).start()
    until(lambda: running.job("long")["is_running"], "the run")
    running.reload({"jobs": TICK})
    running.reload({"jobs": jobs})
    count = len(running.history("tick", limit=100))
    running.until_run("tick", "success", count + 2)

    assert len([run for run in running.client.get("running") if run["job_id"] == "long"]) <= 1


def test_a_run_that_waits_does_not_start_while_its_job_is_paused(daemon):
    running = daemon({"q": {"every": "1s", "overlap": "queue", "shell": "sleep 1.5"}}, shutdown_grace=0).start()
    until(lambda: running.job("q")["queued"] and running.job("q")["is_running"], "a waiting run")
    running.client.post("jobs/q/pause")
    until(lambda: not running.job("q")["is_running"], "the end of the run")
    until(lambda: running.history("q", status="skipped"), "a skipped occurrence")
    assert running.job("q")["queued"]
    assert not running.job("q")["is_running"]
    running.client.post("jobs/q/resume")
    until(lambda: running.job("q")["is_running"], "the waiting run")


def test_a_bad_file_changes_nothing_and_health_shows_it(daemon):
    running = daemon(TICK).start()
    running.reload("jobs: {tick: {every: 1x, shell: x}, tock: {}}")

    health = running.client.get("health")["scheduler"]
    assert not health["is_well"]
    assert [problem.split(":", 3)[3] for problem in health["config_problems"]]
    assert len(health["config_problems"]) == 2
    count = len(running.history("tick", limit=100))
    running.until_run("tick", "success", count + 2)
    running.reload({"jobs": TICK})
    assert running.client.get("health")["scheduler"]["is_well"]


def test_a_new_rule_makes_no_time_before_the_edit_due(daemon):
    running = daemon({"a": {"cron": "0 0 1 1 *", "shell": "true"}}).start()
    running.reload({"jobs": {"a": {"every": "1s", "shell": "true"}}})
    rows = running.until_run("a", "success")

    assert {row["status"] for row in rows} == {"success"}
    assert {row["origin"] for row in rows} == {"schedule"}


# Two daemons


def test_a_second_daemon_on_the_same_state_is_refused_and_the_first_goes_on(daemon):
    first = daemon(TICK).start()
    second = daemon(TICK, folder=first.folder.parent / "second")
    second.write({"state_dir": str(first.folder / "state"), "jobs": TICK})

    assert second.spawn().wait(10) == 75
    assert f"another schedulerd uses the state directory {first.folder}/state" in second.log()
    assert first.client.ask("GET", "/healthz").status == 200


def test_a_second_daemon_on_the_same_socket_is_refused(daemon):
    first = daemon(TICK).start()
    second = daemon(TICK, api={"socket": str(first.socket_path)})

    assert second.spawn().wait(10) == 75
    assert "another schedulerd uses the socket" in second.log()
    assert first.client.ask("GET", "/healthz").status == 200


def test_a_second_daemon_on_the_same_history_is_refused(daemon):
    first = daemon(TICK).start()
    (first.folder / "link.db").symlink_to(first.folder / "state" / "history.db")
    for path in ("state/history.db", "link.db"):
        second = daemon(TICK, store=f"sqlite://{first.folder}/{path}")

        assert second.spawn().wait(10) == 75
        assert f"another schedulerd uses the history {first.folder}/state/history.db" in second.log()


def test_a_daemon_whose_parent_ignored_the_ends_of_children_hears_of_them(daemon):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        running = daemon(TICK)
        running.spawn()
    finally:
        signal.signal(signal.SIGCHLD, before)
    running.wait_for("READY=1")

    running.until_run("tick", "success")


def test_a_daemon_whose_parent_blocked_signals_hears_them_and_so_does_its_keeper(daemon):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        running = daemon(TICK)
        running.spawn()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    running.wait_for("READY=1")
    running.until_run("tick", "success")
    blocked = {pid: _blocked(pid) for pid in (running.process.pid, *keepers(running.folder / "state"))}

    running.reload({"jobs": TICK})
    assert set(blocked.values()) == {0}
    assert running.stop() == 0


def test_a_request_to_reload_while_it_starts_is_heard_when_it_is_ready(daemon):
    running = daemon(TICK)
    process = running.spawn()
    while process.poll() is None and not (running.folder / "state").is_dir():
        """It is not far yet."""
    running.signal(signal.SIGHUP)
    running.wait_for("READY=1", 30)
    running.wait_for("RELOADING=1", 30)
    running.wait_for("READY=1", 30)

    assert running.log().index("is ready") < running.log().index("reloaded: no job changed")


def test_a_daemon_without_standard_descriptors_gives_their_numbers_to_none_of_its_files(daemon):
    running = daemon(TICK)
    running.prefix = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    running.start()
    running.until_run("tick", "success")

    assert [os.readlink(f"/proc/{running.process.pid}/fd/{number}") for number in range(3)] == [os.devnull] * 3


def _blocked(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^SigBlk:\t(\w+)$", status, re.MULTILINE)[1], 16)


def test_a_socket_that_another_program_answers_on_is_not_taken(daemon, tmp_path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        other.listen()
        running = daemon(TICK, api={"socket": str(tmp_path / "s")})

        assert running.spawn().wait(10) == 75
        assert "another process listens on" in running.log()


def test_a_stale_socket_is_taken_away(daemon, tmp_path):
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "s"))
    running = daemon(TICK, api={"socket": str(tmp_path / "s")})
    running.start()

    assert oct(os.stat(tmp_path / "s").st_mode & 0o777) in ("0o600", "0o660")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_socket_is_never_taken_away(daemon, tmp_path, kind):
    (tmp_path / "precious").write_text("precious")
    path = tmp_path / "precious"
    if kind == "link":
        path = tmp_path / "link"
        path.symlink_to(tmp_path / "precious")
    running = daemon(TICK, api={"socket": str(path)})

    assert running.spawn().wait(10) == 78
    assert "is not a socket" in running.log()
    assert (tmp_path / "precious").read_text() == "precious"


def test_another_address_than_loopback_needs_an_explicit_word(daemon):
    running = daemon(TICK, api={"listen": "0.0.0.0:0"})

    assert running.spawn().wait(10) == 78
    assert "allow_plain_remote" in running.log()
    running.write({"api": {"listen": "0.0.0.0:0", "allow_plain_remote": True}, "jobs": TICK})
    running.start()


def test_a_configuration_with_mistakes_starts_nothing(daemon):
    running = daemon({"a": {"every": "1x"}, "b": {"shell": ""}})

    assert running.spawn().wait(10) == 2
    assert len(running.log().splitlines()) == 3
    assert not (running.folder / "state").exists()


def test_check_config_counts_jobs_or_lists_mistakes(daemon):
    good, bad = daemon(TICK), daemon({"a": {}})
    command = [sys.executable, "-m", "schedulerd", "--check-config", "--config"]
    right = subprocess.run([*command, str(good.config_path)], capture_output=True, text=True, check=False)
    wrong = subprocess.run([*command, str(bad.config_path)], capture_output=True, text=True, check=False)

    assert (right.returncode, right.stdout) == (0, f"{good.config_path}: 1 job, no mistakes\n")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "expected exactly one action" in wrong.stderr


@pytest.fixture
def public():
    """A folder that everybody can pass through, and not list; pytest's own are private."""
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)
        yield Path(folder)


@pytest.mark.root("only root can check as somebody else")
def test_root_checks_as_the_user_whose_state_directory_it_is(public):
    jobs = public / "jobs.yaml"
    (public / "state").mkdir()
    (public / "c.yaml").write_text("state_dir: state\ninclude: [jobs.yaml]\n")
    jobs.write_text("jobs: {a: {shell: x}}")
    command = [sys.executable, "-m", "schedulerd", "--check-config", "--config", str(public / "c.yaml")]
    found = []
    for owner, mode in ((0, 0o600), (65534, 0o600), (65534, 0o644)):
        os.chown(public / "state", owner, -1)
        jobs.chmod(mode)
        found.append(subprocess.run(command, capture_output=True, text=True, check=False))

    (public / "c.yaml").write_text("state_dir: state\ninclude: ['j*.yaml']\n")
    listed = subprocess.run(command, capture_output=True, text=True, check=False)

    assert [each.returncode for each in found] == [0, 2, 0]
    assert f"include[0]: {public} cannot be read" in listed.stderr
    assert f"{jobs}:1:1: cannot be read: Permission denied (by uid 65534" in found[1].stderr


# After kill -9


def test_after_kill_9_pauses_hold_and_runs_are_watched_to_their_end(daemon):
    jobs = {"long": {"shell": "sleep 3; exit 7"}, "tick": TICK["tick"], "queued": {"overlap": "queue", "shell": "sleep 2"}}
    running = daemon(jobs).start()
    running.until_run("tick", "success")
    running.client.post("jobs/tick/pause", {"reason": "kept"})
    running.client.post("jobs/long/trigger", wait="false")
    for _ in range(2):
        running.client.post("jobs/queued/trigger", wait="false")
    until(lambda: len(running.client.get("running")) == 2, "two runs")
    running.kill()
    running.start()

    assert running.job("tick")["pause"]["reason"] == "kept"
    (row,) = running.until_run("long", "failed")
    assert (row["exit_code"], row["error_message"]) == (7, "exit status 7")
    assert row["duration_seconds"] >= 3
    first, second = running.until_run("queued", "success", count=2)[::-1]
    assert second["started_at"] >= first["finished_at"]
    assert not running.job("long")["is_running"]


def test_over_many_kills_no_occurrence_starts_twice_and_none_is_lost(daemon, tmp_path):
    jobs = {f"mark{number}": marking(tmp_path / f"marks{number}") for number in range(5)}
    running = daemon(jobs).start()
    for round_ in range(6):
        before = len(marks(tmp_path / "marks0"))
        until(lambda before=before: len(marks(tmp_path / "marks0")) > before, "another start")
        if round_ % 2:
            running.signal(signal.SIGSTOP)  # and so a late, stale loop is killed as well
        running.kill()
        running.start()
    running.until_run("mark0", "success", 3)
    running.stop()

    assert [at for at, count in Counter(occurrences(running)).items() if count > 1] == []
    for number in range(5):
        started = marks(tmp_path / f"marks{number}")
        assert len(started) == len(set(started))
        times = sorted(at for job, at in occurrences(running) if job == f"mark{number}")
        assert set(started) <= {_text(at) for at in times}
        assert _covered(running, f"mark{number}", times)


def _text(micros):
    from datetime import UTC, datetime

    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat().replace("+00:00", "Z")


def _covered(running, job_id, times):
    """Return whether each second from the first to the last occurrence has a row, or is inside a `missed` row."""
    with sqlite3.connect(f"file:{running.folder}/state/history.db?mode=ro", uri=True) as connection:
        gaps = connection.execute(
            "SELECT details ->> 'first', details ->> 'last' FROM runs WHERE job_id = ? AND status = 'missed'", (job_id,)
        ).fetchall()
    connection.close()
    have = {_text(at) for at in times}
    for at in range(times[0], times[-1] + 1, 1_000_000):
        text = _text(at)
        if text not in have and not any(first <= text <= last for first, last in gaps):
            return False
    return True


def test_what_was_due_while_the_daemon_was_away_is_missed_or_caught_up(daemon, tmp_path):
    running = daemon(
        {"mark": marking(tmp_path / "marks"), "none": {**TICK["tick"], "catch_up": "none", "misfire_grace": 0}}
    ).start()
    running.until_run("mark", "success")
    running.stop()
    until(lambda: _seconds_since(tmp_path / "marks") > 3, "three seconds")
    running.start()

    missed = running.until_run("mark", "missed")[0]
    assert missed["details"]["count"] >= 2
    assert missed["error_message"].startswith("a newer occurrence was started instead (")
    assert running.until_run("none", "missed")[0]["error_message"].startswith("later than its misfire_grace")
    assert len(marks(tmp_path / "marks")) == len(set(marks(tmp_path / "marks")))


def _seconds_since(path):
    import time

    return time.time() - path.stat().st_mtime


def test_a_pause_ends_by_itself_when_its_time_has_come(daemon):
    from datetime import UTC, datetime, timedelta

    running = daemon(TICK).start()
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    running.client.post("jobs/tick/pause", {"until": soon})

    assert running.job("tick")["is_paused"]
    until(lambda: not running.job("tick")["is_paused"], "the end of the pause")
    count = len(running.history("tick", limit=100, status="success"))
    running.until_run("tick", "success", count + 1)


def test_runs_that_overlap_are_skipped_queued_or_allowed(daemon):
    jobs = {policy: {"every": "1s", "overlap": policy, "shell": "sleep 2.5"} for policy in ("skip", "queue", "allow")}
    running = daemon(jobs, shutdown_grace=0).start()
    skipped = running.until_run("skip", "skipped", 2)
    running.until_run("allow", "success", 1)

    assert skipped[0]["details"]["reason"] == "overlap"
    assert skipped[0]["details"]["blocking_run"]
    assert running.job("queue")["queued"] >= 1
    by_job = Counter(run["job_id"] for run in running.client.get("running"))
    assert by_job["allow"] >= 2
    assert max(by_job["queue"], by_job["skip"]) <= 1


def test_a_timeout_is_told_as_one(daemon):
    running = daemon({"slow": {"shell": "echo begun; sleep 100", "timeout": "0.3s"}}).start()

    body = running.client.post("jobs/slow/trigger").body
    assert (body["status"], body["success"]) == ("timed_out", False)
    assert body["result"]["error_message"] == "ended after its timeout of 0.3 s; last output: begun"


def test_a_child_knows_who_it_is_and_nothing_of_the_daemon(daemon, tmp_path):
    (tmp_path / "key").write_text("s3cret\n")
    job = {"every": "1s", "shell": f"env > {tmp_path}/env", "env": {"MINE": 1, "KEY": {"file": str(tmp_path / "key")}}}
    running = daemon({"who": job}, env={"SECRET_OF_THE_DAEMON": "x", "LISTEN_FDS": "1"}).start()
    row = running.until_run("who", "success")[-1]

    env = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert (env["MINE"], env["KEY"], env["SCHEDULERD_JOB_ID"], env["SCHEDULERD_ORIGIN"]) == (
        "1",
        "s3cret",
        "who",
        "schedule",
    )
    assert env["SCHEDULERD_ATTEMPT"] == "1"
    assert set(env) == {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "PWD", "MINE", "KEY", "SCHEDULERD_JOB_ID", "SCHEDULERD_RUN_ID",
        "SCHEDULERD_SCHEDULED_AT", "SCHEDULERD_ATTEMPT", "SCHEDULERD_ORIGIN", "SCHEDULERD_RESULT_FILE",
        "SCHEDULERD_FENCING_TOKEN",
    }  # fmt: skip
    assert "s3cret" not in str(running.client.get("jobs")) + running.log() + str(row)


def test_a_secret_that_is_nowhere_fails_the_run_and_names_the_reference(daemon):
    running = daemon({"a": {"shell": "true", "env": {"KEY": {"env": "NOT_THERE"}}}}).start()

    assert "the daemon's environment has no variable NOT_THERE" in running.client.post("jobs/a/trigger").body["message"]


# Who can get to the socket


def _as(uid, gid, groups, running, *words):
    """Return the exit status and the errors of schedulerctl for somebody else.

    Everything is imported before this process becomes them, who may not read the virtual environment.
    """
    words = ["--socket", str(running.socket_path), *words]
    code = (
        "import os, sys; from schedulerd.cli import main as ctl; ctl.make_parser().format_help(); 'a'.encode('idna');"
        f"os.setgroups({groups!r}); os.setgid({gid}); os.setuid({uid}); sys.exit(ctl.main({words!r}))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.fixture
def open_folder():
    """A folder that everybody gets to; pytest closes its own whenever another session begins."""
    with TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


@pytest.mark.root("only root can become somebody else")
def test_group_members_are_operators_peers_have_their_role_and_others_stay_out(daemon, open_folder):
    games = 60
    running = daemon(TICK, open_folder, api={"socket_group": "games"}).start()

    assert _as(54321, 54321, [games], running, "list").returncode != 0  # an unnamed user's groups are nobody's word
    assert _as(5, games, [games], running, "pause", "tick").returncode == 0
    assert "you may not use the socket" in _as(54321, 54321, [], running, "list").stderr
    running.stop()
    running.write({"api": {"socket_group": "games", "peers": [{"user": "54321", "role": "viewer"}]}, "jobs": TICK})
    running.start()
    assert _as(54321, 54321, [], running, "list").returncode == 0
    assert "needs the role operator" in _as(54321, 54321, [], running, "resume", "tick").stderr
    assert "has no role" in _as(54322, 54322, [], running, "list").stderr
    assert oct(os.stat(running.folder / "state").st_mode & 0o777) == "0o711"
    assert {oct(os.stat(running.folder / "state" / name).st_mode & 0o77) for name in ("history.db", "output", "lock")} == {
        "0o0"
    }


def test_a_run_that_writes_too_much_keeps_head_and_tail_and_says_what_is_gone(daemon):
    script = "echo first; head -c 5000000 /dev/zero | tr '\\0' x; echo; echo last; exit 3"
    running = daemon({"flood": {"shell": script, "output_limit": "64K"}}).start()
    run = running.client.post("jobs/flood/trigger").body["result"]
    out = next(running.folder.glob("state/output/*/*.log"))

    assert run["details"]["output_bytes"] == 5_000_000 + len("first\n\nlast\n")
    assert run["details"]["output_dropped_bytes"] > 4_900_000 - 64 * 1024
    assert run["error_message"].endswith("last")
    assert out.stat().st_blocks * 512 < 200_000
    assert out.read_bytes().startswith(b"first\nx")


def test_a_loop_that_can_start_nothing_is_unhealthy(daemon):
    running = daemon(TICK, env={"SCHEDULERD_FAULT": "before_claim:error:1"}).start()
    health = until(lambda: (found := running.client.get("health"))["scheduler"]["loop"] != "ok" and found, "the trouble")

    assert health["status"] == "unhealthy"
    assert health["scheduler"]["loop"] == "the decision about what is due: RuntimeError: fault point before_claim"
    assert running.log().count("unexpected error") == 1
    assert running.stop() == 0


def test_a_hundred_reloads_are_a_few_and_the_last_one_is_loaded(daemon):
    running = daemon(TICK, env={"SCHEDULERD_FAULT": "in_reload:sleep:1:1"}).start()
    for number in range(100):
        running.write({"jobs": {f"job{number}": {"every": "1h", "command": ["true"]}}})
        running.signal(signal.SIGHUP)
    until(lambda: running.client.ask("GET", f"{PREFIX}/jobs/job99").status == 200, "the last job")

    assert running.stop() == 0
    assert running.log().count("reloaded:") < 5  # two, unless this process was held up for seconds meanwhile


def test_a_log_that_nobody_reads_holds_nothing_up(daemon, tmp_path):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    failing = {f"bad{number}": {"every": "1s", "shell": "exit 1", "overlap": "allow"} for number in range(100)}
    running = daemon({**failing, "tick": marking(tmp_path / "marks")})
    running.spawn(stderr=writer)
    running.wait_for("READY=1")
    troubles = until(lambda: running.client.get("health")["scheduler"]["troubles"], "the trouble")
    before = len(marks(tmp_path / "marks"))
    until(lambda: len(marks(tmp_path / "marks")) > before + 1, "two more starts")
    code = running.stop()
    os.close(reader)
    os.close(writer)

    assert re.fullmatch(r"nobody reads the log: \d+ messages kept, 0 lost", troubles[0])
    assert code == 0
