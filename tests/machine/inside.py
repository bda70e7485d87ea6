"""What only a machine of its own can show: real limits, and a real systemd that restarts the daemon under running jobs.

Run by `run`, in a virtual machine and on Debian's own libraries. Each test speaks to one schedulerd that systemd runs.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

FOLDER = Path("/var/lib/schedulerd")
UNIT = Path("/run/systemd/system/schedulerd.service")
GROUP = Path("/sys/fs/cgroup/system.slice/schedulerd.service")
HERE = Path(__file__).resolve().parents[2]
SECONDS = 120

CONFIG = """
state_dir: /var/lib/schedulerd
on_stop: leave
jobs:
  hog:
    command: [python3, -c, "b = bytearray(300_000_000); print(len(b))"]
    limits: {memory: 64M}
  hog_in_background:
    shell: "python3 -c 'b = bytearray(300_000_000)' & wait $!"
    limits: {memory: 64M}
  modest: {command: [python3, -c, "b = bytearray(30_000_000)"], limits: {memory: 200M}}
  bomb:
    shell: "for i in $(seq 100); do sleep 60 & done; wait"
    limits: {pids: 20}
    timeout: 10s
    kill_grace: 1s
  burner:
    command: [python3, -c, "import time; e = time.monotonic() + 6\\nwhile time.monotonic() < e: pass"]
    limits: {cpus: 0.25}
  long: {shell: "sleep 45; exit 7", limits: {memory: 123M}, env: {X: y}}
  other: {shell: "sleep 45; exit 8", overlap: allow}
"""
SERVICE = f"""
[Unit]
StartLimitIntervalSec=0
[Service]
Type=notify
Environment=PYTHONPATH={HERE}
ExecStart=/usr/bin/python3 -m schedulerd --config /etc/schedulerd.yaml
ExecReload=/bin/kill -HUP $MAINPID
ExecStopPost=-/usr/bin/python3 -m schedulerd.host.cgroups
Restart=always
RestartSec=1
Delegate=yes
KillMode=process
TimeoutStartSec=120
"""


def call(*command: str, check: bool = True) -> str:
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=env, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def ctl(*words: str, check: bool = True) -> str:
    return call("python3", "-m", "schedulerd.cli", *words, check=check)


def until(condition, what: str):
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} did not come:\n{call('journalctl', '-n', '50', '--no-pager')}")


def run(job: str) -> dict:
    """Run a job to its end and return its row."""
    ctl("run", job, check=False)
    return json.loads(ctl("history", job, "--limit", "1", "--json"))[0]


def begin(job: str) -> str:
    """Start a job, and return its run_id once it has a group."""
    subprocess.Popen(["python3", "-m", "schedulerd.cli", "run", job], env={**os.environ, "PYTHONPATH": str(HERE)},
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    newest = lambda: [one["run_id"] for one in json.loads(ctl("running", "--json")) if one["job_id"] == job]  # noqa: E731
    run_id = until(newest, f"a run of {job}")[0]
    until(lambda: group_of(run_id), f"the group of {job}")
    return run_id


def group_of(run_id: str) -> Path | None:
    return next(iter(GROUP.glob(f"runs-*/{run_id}")), None)


def main_pid() -> int:
    return int(call("systemctl", "show", "-p", "MainPID", "--value", "schedulerd"))


def answers() -> bool:
    return subprocess.run(
        ["python3", "-m", "schedulerd.cli", "list"], env={**os.environ, "PYTHONPATH": str(HERE)}, capture_output=True,
        timeout=SECONDS, check=False,
    ).returncode == 0  # fmt: skip


def ended(run_id: str) -> dict:
    def row():
        found = json.loads(ctl("show", run_id, "--json"))
        return found if found["status"] not in ("running", "queued") else None

    return until(row, "its end")


@pytest.fixture(scope="module", autouse=True)
def daemon():
    Path("/etc/schedulerd.yaml").write_text(CONFIG)
    Path("/etc/schedulerd.yaml").chmod(0o600)
    UNIT.write_text(SERVICE)
    call("systemctl", "daemon-reload")
    call("systemctl", "start", "schedulerd")
    yield
    print(call("journalctl", "-u", "schedulerd", "--no-pager", "-o", "cat"))


def test_the_machine_has_what_this_is_about():
    print(call("uname", "-r"), call("systemctl", "--version").splitlines()[0], (GROUP / "cgroup.controllers").read_text())
    assert {"cpu", "memory", "pids"} <= set((GROUP / "cgroup.subtree_control").read_text().split())


@pytest.mark.parametrize("job", ["hog", "hog_in_background"])
def test_who_needs_more_memory_than_its_limit_is_killed_and_told_why(job):
    row = run(job)

    print(row["error_message"], row["details"])
    assert row["status"] == "failed"
    assert "more memory than its limit of 64M" in row["error_message"]
    assert row["details"]["oom_kills"] >= 1
    assert row["details"]["peak_memory_bytes"] <= 64 * 1024**2


def test_who_keeps_below_its_limit_is_left_alone_and_its_peak_is_told():
    row = run("modest")

    print(row["details"])
    assert row["status"] == "success"
    assert 30_000_000 < row["details"]["peak_memory_bytes"] < 200 * 1024**2 or not (GROUP / "memory.peak").exists()


def test_a_fork_bomb_meets_its_limit_and_nothing_of_it_is_left():
    row = run("bomb")

    print(row["status"], row["error_message"], row["details"])
    assert row["details"]["pids_refused"] >= 1
    assert call("pgrep", "-c", "-f", "^sleep 60", check=False).strip() == "0"
    assert group_of(row["run_id"]) is None


def test_a_quarter_of_a_processor_is_a_quarter():
    row = run("burner")

    share = row["details"]["cpu_seconds"] / row["duration_seconds"]
    print(f"{row['details']['cpu_seconds']} s of {row['duration_seconds']} s: {share:.2f}")
    assert share < 0.35


def test_a_restart_leaves_what_runs_alone_and_its_limits_are_set_again():
    first, second = begin("long"), begin("other")
    before = main_pid()
    call("systemctl", "restart", "schedulerd")
    until(answers, "the restarted daemon")

    assert main_pid() != before
    assert (group_of(first) / "memory.max").read_text().strip() == str(123 * 1024**2)
    rows = ended(first), ended(second)
    print([(row["status"], row["exit_code"], row["error_message"]) for row in rows])
    assert [row["exit_code"] for row in rows] == [7, 8]


def test_a_killed_daemon_is_started_again_beside_what_runs():
    run_id = begin("long")
    before = main_pid()
    os.kill(before, signal.SIGKILL)
    until(lambda: main_pid() not in (0, before), "another daemon")
    until(answers, "its answer")

    assert ended(run_id)["exit_code"] == 7


def test_a_daemon_whose_keepers_were_killed_too_is_started_again_beside_what_runs():
    run_id = begin("long")
    before = main_pid()
    for pid in call("pgrep", "-f", "schedulerd.process.keeper").split():
        os.kill(int(pid), signal.SIGKILL)
    os.kill(before, signal.SIGKILL)
    until(lambda: main_pid() not in (0, before), "another daemon")
    until(answers, "its answer")

    row = ended(run_id)
    print(row["status"], row["error_message"])
    assert (row["status"], row["exit_code"]) == ("abandoned", None)


def test_a_reload_works_while_controllers_are_handed_on():
    call("systemctl", "reload", "schedulerd")
    until(answers, "its answer")
