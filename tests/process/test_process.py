"""Real children: how they are started, watched and ended."""

import json
import os
import resource
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from schedulerd import __version__
from schedulerd.core.clock import SystemClock
from schedulerd.core.errors import StartError
from schedulerd.process.spec import Cause, Identity, Limits, ProcessSpec, keep_descriptors_private
from schedulerd.process.supervisor import Supervisor
from tests.support.daemon import keepers
from tests.support.heard import Heard
from tests.support.waiting import until

ENV = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def ends(heard):
    return heard.ends


@pytest.fixture
def supervisor(heard, tmp_path):
    made = Supervisor(str(tmp_path / "keeper"), SystemClock(), heard)
    made.recover()
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
    ],
)
def test_what_cannot_start_says_why(supervisor, heard, tmp_path, argv, cwd, why):
    supervisor.launch("r", ProcessSpec(argv, ENV, str(tmp_path / "out"), cwd=cwd))

    run_id, told = heard.refusals.get(timeout=10)
    assert run_id == "r"
    assert why in told


def test_a_nul_is_refused_at_once(supervisor, tmp_path):
    with pytest.raises(StartError, match="NUL"):
        supervisor.launch("r", ProcessSpec(["/bin/echo", "a\0b"], ENV, str(tmp_path / "out")))


def test_a_timeout_ends_the_whole_group(supervisor, ends, tmp_path):
    script = "sleep 1000 & echo $!; sleep 1000 & echo $!; wait"
    supervisor.launch("r", spec(tmp_path, script, timeout_seconds=0.3, kill_grace_seconds=5))

    end = ends.get(timeout=10)
    assert (end.cause, end.exit_code) == (Cause.TIMEOUT, -signal.SIGTERM)
    for pid in map(int, (tmp_path / "out").read_text().split()):
        until(lambda pid=pid: not alive(pid), f"the end of {pid}")


def test_who_ignores_sigterm_is_killed_after_the_grace(supervisor, ends, tmp_path):
    supervisor.launch(
        "r", spec(tmp_path, "trap '' TERM; while :; do sleep 1; done", timeout_seconds=1.5, kill_grace_seconds=0.3)
    )

    end = ends.get(timeout=10)
    assert (end.cause, end.exit_code) == (Cause.TIMEOUT, -signal.SIGKILL)
    assert end.duration_seconds >= 1.5


def test_a_stopped_child_can_be_ended_too(supervisor, ends, tmp_path):
    supervisor.launch("r", spec(tmp_path, "echo $$; kill -STOP $$"))
    pid = int(until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").read_text(), "its process id"))
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "the stop")

    assert supervisor.end("r", Cause.CANCEL)
    assert ends.get(timeout=10).cause is Cause.CANCEL


def test_leftovers_of_the_group_are_killed_and_hold_nothing_up(supervisor, ends, tmp_path):
    supervisor.launch("r", spec(tmp_path, "sleep 1000 & echo $!"))

    assert ends.get(timeout=5).exit_code == 0
    pid = int((tmp_path / "out").read_text())
    until(lambda: not alive(pid), "the end of the leftover")


@pytest.mark.parametrize("way", ["", "setsid "])
def test_leftovers_that_are_killed_are_told(supervisor, ends, tmp_path, way):
    env = {**ENV, "SCHEDULERD_RUN_ID": "leaves"}
    script = f"{way}sleep 1000 & echo $!; {way}sleep 2000 & echo $!; sleep 0.3"
    supervisor.launch("leaves", ProcessSpec(["/bin/sh", "-c", script], env, str(tmp_path / "out")))

    end = ends.get(timeout=10)
    assert [name.partition(" ")[0] for name in end.leftovers] == ["sleep", "sleep"]
    pids = map(int, (tmp_path / "out").read_text().split())
    until(lambda: not any(map(alive, pids)), "the end of what was left")
    assert end.unkilled is None


@pytest.mark.parametrize("script", ["sleep 0 & exec sleep 0.3", "sleep 1000 & wait", "setsid sleep 1000 & wait", "true"])
def test_what_ended_before_or_at_the_timeout_is_no_leftover(supervisor, ends, tmp_path, script):
    supervisor.launch("r", spec(tmp_path, script, timeout_seconds=0.6, kill_grace_seconds=5))

    assert ends.get(timeout=10).leftovers == ()


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


def test_many_that_are_told_to_end_at_once_end_at_once(supervisor, ends, tmp_path):
    for number in range(200):
        supervisor.launch(f"r{number}", spec(tmp_path, "sleep 1000", name=f"o{number}", kill_grace_seconds=60))
    for number in range(200):
        supervisor.end(f"r{number}", Cause.SHUTDOWN)

    assert {ends.get(timeout=20).cause for _ in range(200)} == {Cause.SHUTDOWN}


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


ESCAPES = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:  # its parent dies, so that nothing but its environment tells whose it is
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        while True:
            time.sleep(1)
    os._exit(0)
time.sleep(LEADER)
"""


ESCAPED = f"escaped-{os.getpid()}"  # a keeper knows it by its mark, among the processes of all who test here


def escaping(folder: Path, leader: float, **changes) -> ProcessSpec:
    argv = [sys.executable, "-S", "-c", ESCAPES.replace("LEADER", str(leader))]
    return ProcessSpec(argv, {**ENV, "SCHEDULERD_RUN_ID": ESCAPED}, str(folder / "out"), **changes)


def grandchild(folder: Path) -> int:
    return int(until(lambda: (folder / "out").exists() and (folder / "out").read_text(), "the grandchild"))


def test_the_timeout_ends_who_has_left_the_session(supervisor, ends, tmp_path):
    supervisor.launch(ESCAPED, escaping(tmp_path, 1000, timeout_seconds=1.5, kill_grace_seconds=0.3))
    pid = grandchild(tmp_path)

    assert ends.get(timeout=15).cause is Cause.TIMEOUT
    assert not alive(pid)


def test_who_is_left_behind_in_another_session_is_killed(supervisor, ends, tmp_path):
    supervisor.launch(ESCAPED, escaping(tmp_path, 0.2))
    pid = grandchild(tmp_path)

    end = ends.get(timeout=15)
    assert (end.exit_code, end.cause) == (0, None)
    assert not alive(pid)


def test_leftovers_can_be_kept(supervisor, ends, tmp_path):
    supervisor.launch("r", spec(tmp_path, "sleep 1000 & echo $!", keeps_leftovers=True))

    assert ends.get(timeout=10).exit_code == 0
    pid = int((tmp_path / "out").read_text())
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


def test_a_flood_keeps_its_head_and_its_tail(supervisor, ends, tmp_path):
    script = "echo first; head -c 60000000 /dev/zero | tr '\\0' x; echo; echo last"
    supervisor.launch("r", spec(tmp_path, script, output_limit_bytes=1_000_000))
    assert ends.get(timeout=30).exit_code == 0

    out = tmp_path / "out"
    assert out.stat().st_size == 60_000_000 + len("first\n\nlast\n")
    assert out.stat().st_blocks * 512 < 1_300_000
    with out.open("rb") as file:
        assert file.read(7) == b"first\nx"
        file.seek(-7, os.SEEK_END)
        assert file.read() == b"x\nlast\n"


def test_a_child_that_erases_its_output_is_seen_and_bounded_all_the_same(supervisor, ends, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    script = f"""
        head -c 60000000 /dev/zero | tr '\\0' x; read line < {tmp_path}/fifo
        echo first > /dev/stdout; head -c 40000000 /dev/zero | tr '\\0' y >> /dev/stderr; echo last
    """
    supervisor.launch("r", spec(tmp_path, script, output_limit_bytes=1_000_000))
    out = tmp_path / "out"
    until(lambda: out.exists() and out.stat().st_size == 60_000_000 and out.stat().st_blocks * 512 < 1_300_000, "the cut")
    (tmp_path / "fifo").write_text("go\n")

    assert ends.get(timeout=30).is_output_erased
    assert out.stat().st_size == 40_000_000 + len("first\nlast\n")
    assert out.stat().st_blocks * 512 < 1_300_000


def test_what_a_run_leaves_running_does_not_write_more_than_the_run_might(supervisor, ends, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    script = f"(setsid sh -c 'read line < {tmp_path}/fifo; head -c 60000000 /dev/zero; exec sleep 1000' & echo $!)"
    supervisor.launch("r", spec(tmp_path, script, output_limit_bytes=1_000_000, keeps_leftovers=True))
    assert not ends.get(timeout=10).is_output_erased
    out = tmp_path / "out"
    left = int(out.read_text())
    (tmp_path / "fifo").write_text("go\n")

    until(lambda: out.stat().st_size > 60_000_000 and out.stat().st_blocks * 512 < 1_300_000, "the cut")
    os.kill(left, signal.SIGKILL)


def test_a_child_reads_its_input(supervisor, ends, tmp_path):
    supervisor.launch("r", spec(tmp_path, "cat", input=b"\x00\xffbytes"))

    ends.get(timeout=10)
    assert (tmp_path / "out").read_bytes() == b"\x00\xffbytes"


def test_limits_and_umask_are_the_childs_alone(supervisor, ends, tmp_path):
    limits = Limits({"NOFILE": (77, 78), "CORE": (0, 0)}, nice=19)
    supervisor.launch("r", spec(tmp_path, "ulimit -Sn; ulimit -Hn; umask; nice", limits=limits, umask=0o027))
    ends.get(timeout=10)
    supervisor.launch("s", spec(tmp_path, "ulimit -Sn; nice", name="other"))
    ends.get(timeout=10)

    assert (tmp_path / "out").read_text().split() == ["77", "78", "0027", "19"]
    assert (tmp_path / "other").read_text().split() == [str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]), str(os.nice(0))]


@pytest.mark.root("only root may become another user")
def test_a_child_becomes_another_user_for_good(supervisor, heard, tmp_path):
    script = "id -u; id -g; id -G; python3 -c 'import os; os.setuid(0)' 2>&1 | tail -1"
    supervisor.launch("r", spec(tmp_path, script, identity=Identity(65534, 65534, (65534, 100))))
    heard.ends.get(timeout=10)
    said = (tmp_path / "out").read_text().splitlines()

    assert said[:2] == ["65534", "65534"]
    assert set(said[2].split()) == {"65534", "100"}
    assert "PermissionError" in said[3]


@pytest.mark.root("only root may become another user")
def test_another_user_may_open_its_output_by_the_name_of_a_device(supervisor, ends, tmp_path):
    script = f"echo one >> /dev/stdout && echo two >> /dev/stderr && echo three >&2; cat {tmp_path}/out"
    tmp_path.chmod(0o700)
    supervisor.launch("r", spec(tmp_path, script, identity=Identity(65534, 65534)))
    ends.get(timeout=10)

    assert (tmp_path / "out").read_text().startswith("one\ntwo\nthree\ncat:")  # and not by its path
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


@pytest.mark.root("only root may become another user")
def test_who_cannot_become_another_user_does_not_run(supervisor, heard, tmp_path):
    supervisor.launch("r", spec(tmp_path, f"touch {tmp_path}/ran", identity=Identity(2**32 - 1, 0)))

    assert "user" in heard.refusals.get(timeout=10)[1]
    assert not (tmp_path / "ran").exists()


def again(tmp_path: Path) -> tuple[Supervisor, Heard, dict]:
    """Return another daemon's side of the same keepers."""
    heard = Heard()
    made = Supervisor(str(tmp_path / "keeper"), SystemClock(), heard)
    return made, heard, made.recover()


def test_children_outlive_the_daemon_and_their_ends_are_told_to_the_next(tmp_path):
    first, _, _ = again(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    first.launch("short", spec(tmp_path, "echo 1; exit 5", name="short"))
    first.launch("long", spec(tmp_path, f"read line < {tmp_path}/fifo; echo $line; exit 6", name="long"))
    until((tmp_path / "long").exists, "the start")
    until(lambda: "short" in (tmp_path / "keeper/0/journal").read_text() + (tmp_path / "keeper/1/journal").read_text(), "it")
    first.close()

    second, heard, known = again(tmp_path)
    assert set(known) == {"short", "long"}
    second.start()
    assert heard.ends.get(timeout=10).exit_code == 5
    (tmp_path / "fifo").write_text("go\n")
    assert heard.ends.get(timeout=10).exit_code == 6
    assert (tmp_path / "long").read_text() == "go\n"
    second.forget(["short", "long"])
    second.close()
    third, _, known = again(tmp_path)
    third.close()
    assert known == {}


def test_a_keeper_that_is_killed_is_replaced_and_its_children_are_watched_to_their_end(supervisor, heard, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    supervisor.launch("r", spec(tmp_path, f"read line < {tmp_path}/fifo"))
    heard.starts.get(timeout=10)
    for pid in keepers(tmp_path):
        os.kill(pid, signal.SIGKILL)
    supervisor.launch("next", spec(tmp_path, "exit 3", name="next"))

    end = heard.ends.get(timeout=20)
    assert (end.run_id, end.exit_code) == ("next", 3)
    (tmp_path / "fifo").write_text("go\n")
    end = heard.ends.get(timeout=20)
    assert end.run_id == "r"
    assert "keeper was killed" in end.lost


def test_a_keeper_ends_when_it_has_nothing_to_do(tmp_path):
    made, _, _ = again(tmp_path)
    assert len(keepers(tmp_path)) == len(made._pool.connections)
    made.close()

    assert keepers(tmp_path) == []


def test_an_end_that_is_told_with_the_greeting_is_heard(tmp_path):
    os.makedirs(tmp_path / "keeper" / "0")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:  # says what a keeper does when a child ends just then
        server.bind(str(tmp_path / "keeper" / "0" / "socket"))
        server.listen(1)
        answering = threading.Thread(target=answer_once, args=(server, "r"))
        answering.start()
        made, heard, known = again(tmp_path)
        made.start()
        end = heard.ends.get(timeout=10)
        made.close()
        answering.join()

    assert set(known) == {"r"}
    assert (end.run_id, end.exit_code) == ("r", 4)


def answer_once(server: socket.socket, run_id: str) -> None:
    greeting = {"hello": __version__, "runs": {run_id: {"start": {"pid": 1, "began": 1, "at": 1.0}, "end": None}}}
    end = {"ended": run_id, "cause": None, "seconds": 1.0, "at": 2.0, "code": 4}
    with server.accept()[0] as connection:
        connection.sendall(json.dumps(greeting).encode() + b"\n" + json.dumps(end).encode() + b"\n")
        connection.recv(1)  # until the daemon has closed it


def test_a_journal_with_a_damaged_line_keeps_no_keeper_from_starting(tmp_path):
    os.makedirs(tmp_path / "keeper" / "0")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    start = json.dumps({"kind": "start", "run": "r", "pid": 1, "began": 1, "at": 1.0})
    (tmp_path / "keeper" / "0" / "journal").write_text(f'{{"kind":"boot","id":"{boot}"}}\n{{"kind":"inte\n{start}\n')
    made, heard, known = again(tmp_path)
    made.start()
    end = heard.ends.get(timeout=10)
    made.close()

    assert set(known) == {"r"}
    assert "its exit status was lost" in end.lost


def test_an_output_that_is_taken_away_costs_no_end(supervisor, ends, tmp_path):
    supervisor.launch("r", spec(tmp_path, f"rm {tmp_path}/out; echo gone; exit 3", output_limit_bytes=8192))

    assert ends.get(timeout=10).exit_code == 3
