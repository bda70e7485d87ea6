"""Calls that make a descriptor or a process fail: nothing leaks, no end is lost, nobody is taken for dead."""

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from schedulerd.backups.catalogue import Catalogue
from schedulerd.backups.source import BackupError
from schedulerd.core.clock import SystemClock
from schedulerd.host.files import read_regular
from schedulerd.host.identity import owner_at
from schedulerd.process.keeper.procfs import process
from schedulerd.process.spec import Cause, ProcessSpec
from schedulerd.process.supervisor import Supervisor
from tests.support.daemon import keepers
from tests.support.fdfault import Faults, Kind
from tests.support.heard import Heard
from tests.support.waiting import until


@pytest.mark.slow
def test_no_call_that_fails_leaks_a_descriptor(tmp_path):
    command = [sys.executable, "-m", "tests.support.fdsweep", str(tmp_path)]
    env = {**os.environ, **Faults(tmp_path / "faults").env}
    told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, env=env, check=True).stdout)

    assert {name: each["leaks"] + each["odd"] for name, each in told.items()} == {name: [] for name in told}
    assert all(each["calls"] for each in told.values())


def test_what_is_no_file_leaks_no_descriptor(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ValueError, match="not a regular file"):
            read_regular(str(tmp_path), 100)

    assert len(os.listdir("/proc/self/fd")) == before


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let this process open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_shortage_is_no_word_about_what_was_asked_for(tmp_path):
    catalogue = Catalogue(str(tmp_path / "backups"), is_created=True)
    with no_descriptor_left(), pytest.raises(BackupError, match="LimitNOFILE"):
        catalogue.get("b-20260101T000000Z.db")
    catalogue.close()
    with no_descriptor_left(), pytest.raises(OSError, match="Too many open files"):
        process(os.getpid())
    with no_descriptor_left(), pytest.raises(OSError, match="Too many open files"):
        owner_at(str(tmp_path))


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """Faults of the keepers that are started from now on."""
    made = Faults(tmp_path / "faults")
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def made(faults, heard, tmp_path):
    made = begin(tmp_path, heard)
    yield made
    if made.is_alive():
        made.close()
    for pid in keepers(tmp_path):
        os.kill(pid, signal.SIGKILL)


def begin(folder: Path, heard: Heard) -> Supervisor:
    made = Supervisor(str(folder / "keeper"), SystemClock(), heard)
    made.recover()
    made.start()
    return made


def spec(folder: Path, script: str, name: str, **more) -> ProcessSpec:
    return ProcessSpec(["/bin/sh", "-c", script], {"PATH": "/usr/bin:/bin"}, str(folder / name), **more)


def begin_a_run(made: Supervisor, heard: Heard, folder: Path, **more) -> None:
    """Start the run `long`, which ends when its fifo is written to."""
    os.mkfifo(folder / "fifo")
    made.launch("long", spec(folder, f"read line < {folder}/fifo; exit 3", "long", **more))
    assert heard.starts.get(timeout=10)[0] == "long"


def end_it(folder: Path) -> None:
    (folder / "fifo").write_text("now\n")


def in_use(folder: Path) -> list[int]:
    return sorted(len(os.listdir(f"/proc/{pid}/fd")) for pid in keepers(folder))


@pytest.mark.parametrize(
    ("kinds", "error", "why"), [(Kind.PROCESS, errno.EAGAIN, "TasksMax"), (~Kind.ADD, errno.EMFILE, "LimitNOFILE")]
)
def test_a_start_that_a_limit_refuses_says_so_and_costs_no_later_one(made, heard, faults, tmp_path, kinds, error, why):
    before = in_use(tmp_path)
    faults.fail(1, kinds, error, lasts=True)
    for number in range(20):
        made.launch(f"r{number}", spec(tmp_path, "exit 4", f"r{number}", umask=0o77))
    refusals = [heard.refusals.get(timeout=10)[1] for _ in range(20)]
    faults.stop()

    assert all(why in text for text in refusals)
    until(lambda: why in (made.trouble or ""), "the shortage")
    assert in_use(tmp_path) == before
    for number in range(8):  # by both keepers
        made.launch(f"s{number}", spec(tmp_path, "exit 4", f"s{number}", umask=0o77))
    assert {heard.ends.get(timeout=10).exit_code for _ in range(8)} == {4}
    until(lambda: made.trouble is None, "no shortage")


def test_an_end_is_heard_that_came_while_no_process_could_be_listed(made, heard, faults, tmp_path):
    begin_a_run(made, heard, tmp_path)
    faults.fail(1, Kind.OPEN | Kind.FOLDER | Kind.PIDFD, lasts=True)
    end_it(tmp_path)
    until(faults.calls, "a look at processes")
    faults.stop()

    assert heard.ends.get(timeout=10).exit_code == 3


def test_an_end_is_told_when_processes_cannot_be_listed_for_long(made, heard, faults, tmp_path):
    begin_a_run(made, heard, tmp_path)
    faults.fail(1, Kind.OPEN | Kind.FOLDER | Kind.PIDFD, errno.ENFILE, lasts=True)
    end_it(tmp_path)

    assert heard.ends.get(timeout=20).exit_code == 3
    faults.stop()


def test_a_run_that_no_descriptor_can_be_had_for_is_adopted_all_the_same(made, heard, faults, tmp_path):
    begin_a_run(made, heard, tmp_path)
    faults.fail(1, Kind.PIDFD, lasts=True)
    for pid in keepers(tmp_path):
        os.kill(pid, signal.SIGKILL)
    until(lambda: "polled" in (made.trouble or ""), "the new keeper")
    assert heard.ends.empty()
    faults.stop()
    end_it(tmp_path)

    assert "its keeper was killed" in heard.ends.get(timeout=10).lost
    until(lambda: made.trouble is None, "nothing is polled")


def test_a_run_that_is_polled_can_be_ended(made, heard, faults, tmp_path):
    begin_a_run(made, heard, tmp_path)
    faults.fail(1, Kind.PIDFD, lasts=True)
    for pid in keepers(tmp_path):
        os.kill(pid, signal.SIGKILL)
    until(lambda: "polled" in (made.trouble or ""), "the new keeper")
    faults.stop()
    assert made.end("long", Cause.CANCEL)

    assert heard.ends.get(timeout=10).cause is Cause.CANCEL


@pytest.mark.parametrize("kind", [Kind.INOTIFY, Kind.ADD])
def test_outputs_that_cannot_be_watched_are_bounded_all_the_same(faults, heard, tmp_path, kind):
    if kind is Kind.INOTIFY:
        faults.fail(1, kind, lasts=True)
    made = begin(tmp_path, heard)
    if kind is Kind.ADD:
        faults.fail(1, kind, errno.ENOSPC, lasts=True)
    script = f"head -c 1000000 /dev/zero; read line < {tmp_path}/fifo"
    os.mkfifo(tmp_path / "fifo")
    made.launch("flood", spec(tmp_path, script, "flood", output_limit_bytes=65536))
    until(lambda: (tmp_path / "flood").exists() and (tmp_path / "flood").stat().st_size == 1_000_000, "the flood")
    until(lambda: (tmp_path / "flood").stat().st_blocks * 512 < 200_000, "the cut")
    assert "inotify" in (made.trouble or "")
    end_it(tmp_path)

    assert heard.ends.get(timeout=10).exit_code == 0
    faults.stop()
    made.close()


def test_ends_are_noted_while_no_connection_can_be_accepted(made, heard, faults, tmp_path):
    begin_a_run(made, heard, tmp_path)
    (place,) = [each.parent for each in tmp_path.glob("keeper/*/journal") if '"long"' in each.read_text()]
    made.close()
    faults.fail(1, Kind.ACCEPT, lasts=True)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(place / "socket"))
        until(faults.calls, "the first try")
        end_it(tmp_path)
        until(lambda: '"end"' in (place / "journal").read_text(), "the end")
        assert faults.stop() < 100
        connection.settimeout(10)
        with connection.makefile("rb") as reports:
            assert json.loads(reports.readline())["runs"]["long"]["end"]["code"] == 3
            assert "cannot accept a connection" in json.loads(reports.readline())["trouble"]


def started_under(daemon, limits: str, jobs, **top):
    running = daemon(jobs, **top)
    running.prefix = ["prlimit", f"--nofile={limits}"]
    return running.start()


@pytest.mark.parametrize("more", [{}, {"umask": "077"}], ids=["posix_spawn", "fork"])
def test_the_daemon_and_its_keepers_take_the_hard_limit_and_jobs_have_the_soft_one(daemon, more):
    script = "test $(ulimit -Sn) = 100 && test $(ulimit -Hn) = 300"
    running = started_under(daemon, "100:300", {"j": {"startup": True, "command": ["/bin/sh", "-c", script], **more}})
    running.until_run("j", "success")

    told = running.client.get("health")["scheduler"]["descriptors"]
    assert (told["limit"], told["limit_of_jobs"], told["trouble"]) == (300, 100, None)
    assert {each["limit"] for each in told["keepers"]} == {300}
    assert "up to 300 descriptors" in running.log()
