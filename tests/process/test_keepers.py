"""Keepers that do not answer, or cannot be had, keep nobody waiting and cost no run that they have not started."""

import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from schedulerd.api.listeners import bind_unix
from schedulerd.config.config import ApiSettings
from schedulerd.core.clock import SystemClock
from schedulerd.core.errors import SchedulerdError, StartError
from schedulerd.process import failover, keeper_restarts, keeper_starter
from schedulerd.process.spec import Cause, ProcessSpec
from schedulerd.process.supervisor import Supervisor
from tests.support.daemon import keepers
from tests.support.heard import Heard
from tests.support.leftovers import processes_named
from tests.support.threads import no_more_threads
from tests.support.waiting import until

IGNORED = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD})


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def quick(monkeypatch):
    """Let nothing be waited for as long as on a busy machine."""
    monkeypatch.setattr(failover, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr(keeper_restarts, "AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(keeper_starter, "BEGIN_SECONDS", 2.0)


@pytest.fixture
def folder(tmp_path):
    """Leaves no keeper behind, not even one that stands still, and none of the runs of one that was killed."""
    yield tmp_path
    for pid in (*keepers(tmp_path), *processes_named(str(tmp_path))):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def made(quick, heard, folder):
    made = begin(folder, heard)
    yield made
    made.close()


def begin(folder: Path, heard: Heard) -> Supervisor:
    made = Supervisor(str(folder / "keeper"), SystemClock(), heard)
    made.recover()
    made.start()
    return made


def spec(folder: Path, script: str, name: str) -> ProcessSpec:
    return ProcessSpec(["/bin/sh", "-c", script], {"PATH": "/usr/bin:/bin"}, str(folder / name))


def keeper_of(folder: Path, run_id: str) -> tuple[Path, int]:
    """Return the folder and the process id of the keeper that knows a run."""
    place = next(each.parent for each in folder.glob("keeper/*/journal") if f'"{run_id}"' in each.read_text())
    (pid,) = [pid for pid in keepers(folder) if os.fsencode(place) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
    return place, pid


def begin_a_run(made: Supervisor, heard: Heard, folder: Path) -> tuple[Path, int]:
    """Start a run that ends when its fifo is written to, and return its keeper."""
    os.mkfifo(folder / "fifo")
    made.launch("long", spec(folder, f"read line < {folder}/fifo", "long"))
    assert heard.starts.get(timeout=10)[0] == "long"
    return keeper_of(folder, "long")


def lock_out(place: Path) -> None:
    """Let no keeper be started in a folder."""
    (place / "lock").unlink()
    (place / "lock").mkdir()


@pytest.mark.skipif(os.cpu_count() == 1, reason="there is one keeper on a single core")
def test_while_a_keeper_cannot_be_had_the_other_one_starts_all_and_nobody_waits(made, heard, folder):
    place, pid = begin_a_run(made, heard, folder)
    lock_out(place)
    os.kill(pid, signal.SIGKILL)
    until(lambda: "cannot be started" in (made.trouble or ""), "the trouble")
    for number in range(10):
        made.launch(f"r{number}", spec(folder, "exit 4", f"r{number}"))
    assert {heard.ends.get(timeout=10).exit_code for _ in range(10)} == {4}
    made.forget([f"r{number}" for number in range(10)])
    assert made.end("long", Cause.CANCEL)  # it is told to the next one

    (place / "lock").rmdir()
    end = heard.ends.get(timeout=10)
    assert (end.run_id, end.cause) == ("long", Cause.CANCEL)
    assert made.trouble is None


def test_what_is_due_while_no_keeper_can_be_had_is_refused_with_the_reason(made, heard, folder):
    both = [(each, pid) for each in folder.glob("keeper/*") for pid in keepers(folder) if each.name == place_of(pid)]
    for place, _ in both:
        lock_out(place)
    for _, pid in both:
        os.kill(pid, signal.SIGKILL)
    until(lambda: (made.trouble or "").count("is gone") == len(both), "the loss")
    made.launch("held", spec(folder, "exit 4", "held"))
    run_id, why = heard.refusals.get(timeout=20)

    assert run_id == "held"
    assert "cannot be started" in why
    with pytest.raises(StartError, match="no keeper"):
        made.launch("r", spec(folder, "exit 4", "r"))


def place_of(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return Path(os.fsdecode(words[words.index(b"schedulerd.process.keeper") + 1])).name


@pytest.mark.slow
def test_a_keeper_that_stands_still_is_replaced_and_starts_nothing_twice(made, heard, folder):
    for pid in keepers(folder):
        os.kill(pid, signal.SIGSTOP)
    before = set(keepers(folder))
    for number in range(2000):  # more than the sockets take
        made.launch(f"r{number}", spec(folder, f"echo {number} >> {folder}/log", f"r{number}"))
    ends = [heard.ends.get(timeout=60) for _ in range(2000)]

    assert {end.exit_code for end in ends} == {0}
    assert sorted(map(int, (folder / "log").read_text().split())) == list(range(2000))
    assert not before & set(keepers(folder))
    until(lambda: made.trouble is None, "no trouble")


@pytest.fixture
def stuck(folder):
    """A program whose start hangs, as on a share that is away, until the yielded function is called (fcntl(2), leases)."""
    program = folder / "program"
    program.write_text(f"#!/bin/sh\ntouch {folder}/ran\n")
    program.chmod(0o700)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # tells that somebody wants the file
    with program.open() as file:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield program, lambda: fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    signal.signal(signal.SIGIO, before)


def test_what_a_keeper_was_stuck_in_starting_never_runs_after_it_is_told_to_be_lost(made, heard, folder, stuck):
    program, release = stuck
    before = set(keepers(folder))
    made.launch("stuck", ProcessSpec([str(program)], {}, str(folder / "out")))  # an id that no process of another test has
    until(lambda: set(keepers(folder)) - before, "the child that hangs, and looks like its keeper yet")
    (child,) = set(keepers(folder)) - before
    end = heard.ends.get(timeout=20)

    assert "while it was started" in end.lost
    assert child not in keepers(folder)
    release()
    made.launch("next", spec(folder, "exit 4", "next"))
    assert heard.ends.get(timeout=10).exit_code == 4
    assert not (folder / "ran").exists()


def test_the_runs_of_a_keeper_that_stands_still_are_watched_by_the_next_one(made, heard, folder):
    _, pid = begin_a_run(made, heard, folder)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: made.trouble and "does not answer" in made.trouble, "the trouble")
    until(lambda: made.trouble is None, "another keeper")
    (folder / "fifo").write_text("go\n")

    end = heard.ends.get(timeout=10)
    assert end.run_id == "long"
    assert "keeper was killed" in end.lost


def test_a_daemon_that_starts_replaces_a_keeper_that_stands_still(quick, heard, folder):
    first = begin(folder, heard)
    _, pid = begin_a_run(first, heard, folder)
    first.close()
    os.kill(pid, signal.SIGSTOP)
    second = Supervisor(str(folder / "keeper"), SystemClock(), heard)

    assert set(second.recover()) == {"long"}
    assert pid not in keepers(folder)
    second.close()


def test_a_daemon_ends_whatever_its_keepers_do(quick, heard, folder):
    made = begin(folder, heard)
    begin_a_run(made, heard, folder)
    for pid in keepers(folder):
        os.kill(pid, signal.SIGSTOP)
    for number in range(1000):
        made.launch(f"r{number}", spec(folder, "exit 4", f"r{number}"))
    made.end("long", Cause.SHUTDOWN)
    made.close()

    assert not made.is_alive()


def test_no_signal_that_a_job_sends_to_its_parent_ends_a_keeper(made, heard, folder):
    script = "; ".join(f"kill -{int(number)} $PPID" for number in IGNORED)
    before = set(keepers(folder))
    made.launch("r", spec(folder, f"{script}; kill -CONT $PPID", "r"))

    assert heard.ends.get(timeout=10).exit_code == 0
    assert before == set(keepers(folder))


def test_keepers_live_in_a_folder_whose_path_is_too_long_for_a_socket(quick, heard, tmp_path):
    folder = tmp_path / ("x" * 110)
    folder.mkdir()
    made = begin(folder, heard)
    made.launch("r", spec(folder, "exit 4", "r"))

    assert heard.ends.get(timeout=10).exit_code == 4
    made.close()


def test_a_path_that_is_too_long_for_the_daemons_own_socket_is_told_with_the_way_out(tmp_path):
    with pytest.raises(SchedulerdError, match=r"107 bytes.*api\.socket"):
        bind_unix(ApiSettings(socket=str(tmp_path / ("x" * 110))), str(tmp_path))


def test_an_idle_keeper_is_asked_nothing(made, heard, folder):
    made.launch("r", spec(folder, "exit 4", "r"))
    heard.ends.get(timeout=10)

    until(lambda: made._pool.is_resting, "the rest")
    assert made._check_at is None


def test_a_keeper_ends_without_a_word_when_its_socket_is_not_its_own_any_more(heard, folder):
    made = begin(folder, heard)
    for socket in folder.glob("keeper/*/socket"):
        socket.unlink()
    made.close()
    until(lambda: not keepers(folder), "the end of the keepers")

    assert {path.read_text() for path in folder.glob("keeper/*/errors")} == {""}


def test_ends_that_could_not_be_heard_are_told_again(quick, folder):
    class Deaf(Heard):
        times = 0

        def on_children_ended(self, ends):
            self.times += 1
            if self.times < 3:
                raise RuntimeError("can't start new thread")
            super().on_children_ended(ends)

    deaf = Deaf()
    made = begin(folder, deaf)
    made.launch("a", spec(folder, "exit 3", "a"))
    end = deaf.ends.get(timeout=20)
    made.close()

    assert (end.run_id, end.exit_code) == ("a", 3)
    assert deaf.ends.empty()


def test_a_report_that_cannot_be_dealt_with_costs_the_others_nothing(quick, folder, caplog):
    class Odd(Heard):
        def on_child_started(self, run_id, at):
            if run_id.startswith("odd"):
                raise KeyError(run_id)
            super().on_child_started(run_id, at)

    odd = Odd()
    made = begin(folder, odd)
    for number in range(20):
        for name in ("odd", "even"):
            made.launch(f"{name}{number}", spec(folder, "exit 0", f"{name}{number}"))
    ended = {odd.ends.get(timeout=20).run_id for _ in range(40)}
    made.close()

    assert len(ended) == 40
    assert sum("unexpected error" in record.message for record in caplog.records) == 1


def test_a_keeper_that_cannot_be_restarted_for_lack_of_threads_is_logged_once(made, heard, folder, caplog):
    _, pid = begin_a_run(made, heard, folder)
    with no_more_threads():
        os.kill(pid, signal.SIGKILL)
        until(lambda: "can't start new thread" in caplog.text, "the first try")
    (folder / "fifo").write_text("go\n")

    assert heard.ends.get(timeout=20).run_id == "long"
    assert sum("a keeper cannot be restarted yet" in record.message for record in caplog.records) == 1


def test_a_keeper_in_which_one_step_always_fails_goes_on_with_the_others_and_tells(quick, heard, folder, monkeypatch):
    monkeypatch.setenv("SCHEDULERD_FAULT", "after_fork:error:1")
    made = begin(folder, heard)
    for number in range(6):
        made.launch(f"run{number}", spec(folder, "exit 0", f"run{number}"))
        assert heard.ends.get(timeout=20).exit_code == 0
    trouble = until(lambda: made.trouble, "the trouble")
    made.close()
    told = "".join(path.read_text() for path in folder.glob("keeper/*/errors"))

    assert "orders: unexpected error, continuing" in trouble
    assert "RuntimeError: fault point after_fork" in told
    assert told.count("Traceback") <= made._pool.number


def test_what_keepers_that_cannot_start_have_to_say_is_bounded(quick, folder, heard, monkeypatch):
    monkeypatch.setattr(keeper_starter, "MOST_ERRORS_BYTES", 1000)
    place = folder / "keeper" / "0"
    place.mkdir(parents=True)
    (place / "lock").mkdir()
    made = Supervisor(str(folder / "keeper"), SystemClock(), heard)
    with pytest.raises(StartError, match="errors"):
        made.recover()
    made.close()

    assert (place / "errors.old").exists()
    assert (place / "errors").stat().st_size < 5000
    assert (place / "errors.old").stat().st_size < 5000
