"""Real children: how they are started, watched and ended."""

import json
import os
import queue
import signal
import sys
from pathlib import Path

import pytest

from schedulerd.clock import SystemClock
from schedulerd.errors import StartError
from schedulerd.process import Cause, ProcessSpec, Supervisor, keep_descriptors_private
from tests.support.waiting import until

ENV = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def ends():
    return queue.SimpleQueue()


@pytest.fixture
def supervisor(ends):
    made = Supervisor(SystemClock(), lambda batch: [ends.put(end) for end in batch])
    made.start()
    yield made
    made.close()


def spec(folder: Path, script: str, name: str = "out", **changes) -> ProcessSpec:
    return ProcessSpec(["/bin/sh", "-c", script], dict(ENV), str(folder / name), **changes)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_end_of_a_child_is_heard_with_its_status_and_output(supervisor, ends, tmp_path):
    supervisor.launch("r", spec(tmp_path, "echo out; echo err >&2; exit 3"))

    end = ends.get(timeout=10)
    assert (end.run_id, end.exit_code, end.cause) == ("r", 3, None)
    assert (tmp_path / "out").read_text() == "out\nerr\n"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


def test_a_signal_is_told_as_a_negative_code(supervisor, ends, tmp_path):
    supervisor.launch("r", spec(tmp_path, "kill -9 $$"))

    assert ends.get(timeout=10).exit_code == -9


@pytest.mark.parametrize("cwd", [None, "/"])
def test_a_child_inherits_nothing(supervisor, ends, tmp_path, cwd):
    leaked = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leaked, True)  # as a careless parent of the daemon would have left it
    keep_descriptors_private()
    script = (
        "import os, json; fds = sorted(map(int, os.listdir('/proc/self/fd')));"
        "print(json.dumps([fds[:3], len(fds), sorted(os.environ), os.getsid(0) == os.getpid()]))"
    )
    # Python ignores two signals by itself, so grep is asked what it was given.
    command = f"grep -E 'Sig(Blk|Ign)' /proc/self/status; exec {sys.executable} -I -c \"{script}\""
    supervisor.launch("r", spec(tmp_path, command, cwd=cwd))
    ends.get(timeout=10)
    os.close(leaked)

    lines = (tmp_path / "out").read_text().splitlines()
    blocked, ignored = (int(line.split()[1], 16) for line in lines[:2])
    assert (blocked, ignored) == (0, 0)
    descriptors, count, names, leads_session = json.loads(lines[2])
    assert (descriptors, count) == ([0, 1, 2], 4)  # and the one that lists them
    assert set(names) <= {"PATH", "PWD", "LC_CTYPE", "SHLVL", "_", "OLDPWD"}
    assert leads_session


def test_a_child_can_start_in_another_folder(supervisor, ends, tmp_path):
    supervisor.launch("r", spec(tmp_path, "pwd", cwd="/usr"))

    assert ends.get(timeout=10).exit_code == 0
    assert (tmp_path / "out").read_text() == "/usr\n"


@pytest.mark.parametrize(
    ("argv", "cwd", "why"),
    [
        (["/no/such/program"], None, "there is no program '/no/such/program'"),
        (["/no/such/program"], "/", "there is no program"),
        (["/etc/passwd"], None, "may not be executed"),
        (["/bin/true"], "/no/folder", "is not a folder"),
        (["/bin/echo", "a\0b"], None, "NUL"),
    ],
)
def test_what_cannot_start_says_why(supervisor, tmp_path, argv, cwd, why):
    with pytest.raises(StartError, match=why):
        supervisor.launch("r", ProcessSpec(argv, ENV, str(tmp_path / "out"), cwd=cwd))


def test_a_timeout_ends_the_whole_group(supervisor, ends, tmp_path):
    script = "sleep 1000 & echo $!; sleep 1000 & echo $!; wait"
    supervisor.launch("r", spec(tmp_path, script, timeout_seconds=0.3, kill_grace_seconds=5))

    end = ends.get(timeout=10)
    assert (end.cause, end.exit_code) == (Cause.TIMEOUT, -signal.SIGTERM)
    for pid in map(int, (tmp_path / "out").read_text().split()):
        until(lambda pid=pid: not alive(pid), f"the end of {pid}")


def test_who_ignores_sigterm_is_killed_after_the_grace(supervisor, ends, tmp_path):
    supervisor.launch(
        "r", spec(tmp_path, "trap '' TERM; while :; do sleep 1; done", timeout_seconds=0.2, kill_grace_seconds=0.3)
    )

    end = ends.get(timeout=10)
    assert (end.cause, end.exit_code) == (Cause.TIMEOUT, -signal.SIGKILL)
    assert end.duration_seconds >= 0.5


def test_a_stopped_child_can_be_ended_too(supervisor, ends, tmp_path):
    pid = supervisor.launch("r", spec(tmp_path, "kill -STOP $$"))
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "the stop")

    assert supervisor.end("r", Cause.CANCEL)
    assert ends.get(timeout=10).cause is Cause.CANCEL


def test_leftovers_of_the_group_are_killed_and_hold_nothing_up(supervisor, ends, tmp_path):
    supervisor.launch("r", spec(tmp_path, "sleep 1000 & echo $!"))

    assert ends.get(timeout=5).exit_code == 0
    pid = int((tmp_path / "out").read_text())
    until(lambda: not alive(pid), "the end of the leftover")


def test_what_a_shell_line_started_has_the_grace_to_clean_up(supervisor, ends, tmp_path):
    worker = (
        f"trap 'sleep 0.4; echo clean > {tmp_path}/clean; exit' TERM; echo up > {tmp_path}/up; while :; do sleep 0.1; done"
    )
    supervisor.launch("r", spec(tmp_path, f'sh -c "{worker}" & wait', kill_grace_seconds=10))
    until((tmp_path / "up").exists, "the worker")
    supervisor.end("r", Cause.CANCEL)

    assert ends.get(timeout=10).exit_code == -signal.SIGTERM
    assert (tmp_path / "clean").exists()


def test_what_does_not_clean_up_in_the_grace_is_killed(supervisor, ends, tmp_path):
    script = f"sh -c \"trap '' TERM; echo \\$\\$ > {tmp_path}/pid; while :; do sleep 1; done\" & wait"
    supervisor.launch("r", spec(tmp_path, script, kill_grace_seconds=0.5))
    pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the worker"))
    supervisor.end("r", Cause.CANCEL)

    assert ends.get(timeout=10).duration_seconds >= 0.5
    until(lambda: not alive(pid), "the end of the worker")


def test_a_timeout_of_a_month_holds_nothing_up(supervisor, ends, tmp_path):
    for number in range(300):
        supervisor.launch(f"r{number}", spec(tmp_path, "true", name=f"o{number}", timeout_seconds=30 * 86400.0))
    for _ in range(300):
        assert ends.get(timeout=10).cause is None

    assert len(supervisor._steps) <= 102


def test_many_that_are_told_to_end_at_once_end_at_once(supervisor, ends, tmp_path):
    for number in range(200):
        supervisor.launch(f"r{number}", spec(tmp_path, "sleep 1000", name=f"o{number}", kill_grace_seconds=60))
    for number in range(200):
        supervisor.end(f"r{number}", Cause.SHUTDOWN)

    assert {ends.get(timeout=20).cause for _ in range(200)} == {Cause.SHUTDOWN}


def test_an_end_that_was_seen_is_told_whatever_goes_wrong_with_another(supervisor, ends, tmp_path, monkeypatch):
    def fails(child):
        raise OSError("no descriptor")

    monkeypatch.setattr(supervisor, "_forget_old_steps", lambda: fails(None))
    supervisor.launch("r", spec(tmp_path, "true"))

    assert ends.get(timeout=10).exit_code == 0


def test_a_child_that_cannot_be_watched_is_killed_and_told(supervisor, tmp_path, monkeypatch):
    def fails(pid):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", fails)
    with pytest.raises(StartError, match="could not be watched, and was killed at once: Too many open files"):
        supervisor.launch("r", spec(tmp_path, f"sleep 0.5; touch {tmp_path}/went-on"))

    assert supervisor._children == {}


def test_a_run_that_is_over_cannot_be_ended(supervisor, ends, tmp_path):
    supervisor.launch("r", spec(tmp_path, "true"))
    ends.get(timeout=10)

    assert not supervisor.end("r", Cause.CANCEL)


def test_many_children_are_all_heard_of_once(supervisor, ends, tmp_path):
    for number in range(200):
        supervisor.launch(f"r{number}", spec(tmp_path, f"exit {number % 7}", name=f"out{number}"))
    found = [ends.get(timeout=20) for _ in range(200)]

    assert {end.run_id: end.exit_code for end in found} == {f"r{number}": number % 7 for number in range(200)}
    assert ends.empty()
