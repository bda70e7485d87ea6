"""Jobs and users: S24, S29, S32, S33 and S34, from inside real jobs of the daemon's own user and of another one."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from schedulerd.__main__ import own_user_note
from schedulerd.actions.environment import environment
from schedulerd.cli.client import PREFIX
from schedulerd.core.errors import StartError
from schedulerd.host import accounts
from schedulerd.host.hardening import blanked
from schedulerd.secrets.env_files import decides_what_runs
from tests.support.builders import a_job, a_run
from tests.support.daemon import RunningDaemon, keepers
from tests.support.waiting import until

as_root = pytest.mark.root("only root has jobs of other users")

CANARY = "sesame-of-the-daemon"
GIVEN = {  # as systemd and a careless operator would
    "DB_PASSWORD": CANARY, "PGPASSWORD": CANARY, "SCHEDULERD_TOKEN": CANARY, "CREDENTIALS_DIRECTORY": "/nowhere",
    "WATCHDOG_USEC": "600000000", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "AWS_SECRET_ACCESS_KEY": CANARY,
}  # fmt: skip
ALWAYS = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG"} | {
    f"SCHEDULERD_{name}"
    for name in ("JOB_ID", "RUN_ID", "ATTEMPT", "ORIGIN", "RESULT_FILE", "FENCING_TOKEN", "SCHEDULED_AT")
}
TOLD = ["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]
# What a job can open of what it is told of, as errno or "open"; nothing of it is read.
KNOCK = """
import json, os, socket, sys
def knock(path):
    try:
        if path.endswith(".sock"):
            socket.socket(socket.AF_UNIX).connect(path)
        else:
            os.close(os.open(path, os.O_RDWR if path.endswith("mem") else os.O_RDONLY))
    except OSError as error:
        return error.strerror
    return "open"
print(json.dumps({path: knock(path) for path in sys.argv[1].split()}))
"""
CAPABILITIES = "+setuid,+setgid,+chown,+fowner,+dac_override,+kill"
SHUT = ("Permission denied", "No such file or directory")  # the latter where /proc hides who may not be traced (hidepid)
PYTHON = "/usr/bin/python3"  # one that other users may run


def command(*words, **settings):
    return {"command": list(words), **settings}


JOBS = {
    "env": command("env"),
    "env_nobody": command("env", user="nobody"),
    "env_python": {"python": {"call": "subprocess:check_call", "args": [["env"]]}},
    "secret": {"shell": 'printf %s "$KEY" | rev', "env": {"KEY": {"env": "DB_PASSWORD"}}},
    "signals": command(*TOLD),
    "signals_umask": command(*TOLD, umask="022"),
    "signals_nobody": command(*TOLD, user="nobody"),
    "signals_of_a_grandchild": {"python": {"call": "subprocess:check_call", "args": [TOLD]}},
    "who": {"shell": f"id -u; id -g; id -G; {PYTHON} -c 'import os; os.setuid(0)' 2>&1 | tail -1", "user": "daemon"},
    "too_many": {"shell": "id -u", "user": "nobody", "limits": {"processes": 1}},
    "expired": {"shell": "id -u", "user": "games"},
    "knock": {
        "command": [PYTHON, "-c", KNOCK, {"param": "paths"}],
        "params": {"paths": {"default": "", "max_length": 9000}},
    },
}
JOBS["knock_nobody"] = {**JOBS["knock"], "user": "nobody"}


@pytest.fixture(scope="module")
def running():
    """A daemon with secrets in its environment, in a folder that everybody passes through.

    As root it has no capability to trace whom it likes, so that the jobs of its user are like those of any user; and the
    account of `games` ended long ago, in a file that only it sees.
    """
    with TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        jobs = JOBS if os.geteuid() == 0 else {name: job for name, job in JOBS.items() if "user" not in job}
        config = {"jobs": jobs, "api": {"peers": [{"user": "daemon", "role": "viewer"}]}}
        made = RunningDaemon(Path(place), config, GIVEN)
        made.written = config
        if os.geteuid() == 0:
            shadow = Path(place, "shadow")
            shadow.write_text(re.sub(r"^(games:.*):\d*:$", r"\1:1:", Path("/etc/shadow").read_text(), flags=re.MULTILINE))
            shadow.chmod(0o600)
            script = f'mount --bind {shadow} /etc/shadow && exec setpriv --bounding-set=-all,{CAPABILITIES} "$@"'
            made.prefix = ["unshare", "-m", "sh", "-c", script, "sh"]
        yield made.start()
        made.close()


def run_of(running, job, **body):
    """Run a job, and return its row and its output."""
    row = running.client.post(f"jobs/{job}/trigger", **body).body["result"]
    return row, "".join(path.read_text() for path in running.folder.glob(f"state/output/*/{row['run_id']}.log"))


def ours(running):
    return [running.process.pid, *keepers(running.folder / "state")]


# The daemon's environment, and its memory


def test_s29_no_secret_stays_in_the_environment_of_the_daemon_or_of_its_keepers(running):
    for pid in ours(running):
        assert CANARY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert len(ours(running)) == 3


def test_s29_a_reload_and_a_new_keeper_find_the_secrets_and_show_them_to_nobody(running):
    first, _ = keepers(running.folder / "state")
    running.reload({**running.written, "jobs": {**running.written["jobs"], "fresh": JOBS["secret"]}})
    os.kill(first, signal.SIGKILL)
    until(lambda: first not in (now := keepers(running.folder / "state")) and len(now) == 2, "another keeper")

    assert run_of(running, "fresh")[1] == CANARY[::-1]
    for pid in ours(running):
        assert CANARY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_s29_what_is_blanked_keeps_its_length_and_what_the_loader_needs():
    block = b"LANG=C\0KEY=secret\0no equals sign\0LD_PRELOAD=a.so\0KEY=again\0LD_\xff=x\0"

    assert blanked(block) == b"LANG=C\0" + bytes(11 + 15) + b"LD_PRELOAD=a.so\0" + bytes(10 + 7)


def test_s34_a_job_of_the_daemons_own_user_reads_neither_its_environment_nor_its_memory(running):
    daemon = running.process.pid
    found = knocked(running, "knock", *(f"/proc/{daemon}/{name}" for name in ("environ", "mem", "maps", "fd/3")))

    assert {path: answer for path, answer in found.items() if answer not in SHUT} == {}


@as_root
def test_s34_a_job_of_another_user_reaches_nothing_of_the_daemon(running):
    state = running.folder / "state"
    files = [path for path in state.rglob("*") if not path.is_dir() and path != running.socket_path]  # see the next test
    own = [f"/proc/{pid}/{name}" for pid in ours(running) for name in ("environ", "mem", "maps", "fd/3")]
    found = knocked(running, "knock_nobody", running.config_path, *files, *own)

    assert {path.name for path in files} >= {"history.db", "journal", "socket", "outage.journal"}
    assert {path: answer for path, answer in found.items() if answer not in SHUT} == {}


def knocked(running, job, *paths):
    return json.loads(run_of(running, job, body={"params": {"paths": " ".join(map(str, paths))}})[1])


@as_root
def test_s34_a_socket_that_is_open_to_other_users_tells_them_nothing(running):
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect('{running.socket_path}');"
    code += "s.sendall(b'GET /api/v1/scheduler/jobs HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'); print(s.recv(999).decode())"
    asked = subprocess.run([PYTHON, "-c", code], user=65534, group=65534, extra_groups=[], capture_output=True, text=True,
                           check=True)  # fmt: skip

    assert asked.stdout.startswith("HTTP/1.1 401 ")


# What a child gets


@pytest.mark.parametrize("job", ["env", "env_python", pytest.param("env_nobody", marks=as_root)])
def test_s32_a_child_sees_the_list_and_nothing_else(running, job):
    lines = run_of(running, job)[1].splitlines()

    assert {line.partition("=")[0] for line in lines} == ALWAYS - {"SCHEDULERD_SCHEDULED_AT"}  # it was asked for by hand
    assert CANARY not in "".join(lines)


@pytest.mark.parametrize(
    "job",
    ["signals", "signals_umask", "signals_of_a_grandchild", pytest.param("signals_nobody", marks=as_root)],
)
def test_s32_no_signal_is_blocked_or_ignored_in_a_child(running, job):
    assert re.findall(r"\t(\w+)", run_of(running, job)[1]) == ["0" * 16] * 2


# Whom a child runs as


@as_root
def test_s33_a_child_is_its_user_for_good(running):
    user = accounts.user_of("daemon")
    uid, gid, groups, tried = run_of(running, "who")[1].splitlines()

    assert (int(uid), int(gid)) == (user.pw_uid, user.pw_gid)
    assert set(map(int, groups.split())) == set(os.getgrouplist("daemon", user.pw_gid))
    assert "Operation not permitted" in tried


@as_root
@pytest.mark.parametrize(
    ("job", "why"),
    [
        ("too_many", "its user has as many processes as `limits: {processes: …}` allows"),
        ("expired", "the account of games expired on 1970-01-02: to enable it, run chage -E -1 games"),
    ],
)
def test_s33_a_user_who_can_have_no_process_fails_the_run_and_nothing_runs(running, job, why):
    others = [subprocess.Popen(["sleep", "600"], user="nobody", group="nogroup", extra_groups=[]) for _ in range(2)]
    try:  # with two, the limit is passed as the child becomes that user (execve(2), EAGAIN)
        row, output = run_of(running, job)
    finally:
        for each in others:
            each.kill()
            each.wait()

    assert (row["status"], why in row["error_message"], output) == ("failed", True, "")
    assert running.client.get("health")["scheduler"]["keepers"] == "ok"  # it is no shortage of the host


@as_root
def test_s33_an_account_that_has_ended_is_warned_of_when_the_configuration_is_read(running):
    assert "the account games expired on 1970-01-02: each run would fail" in running.log()


# What decides what runs


@as_root
def test_s24_a_file_of_the_jobs_user_sets_no_variable_that_decides_what_runs(tmp_path):
    file = tmp_path / "env"
    file.write_text("GREETING=hello\nLD_PRELOAD=/home/x/y.so\nPATH=/home/x\n")
    file.chmod(0o600)
    env = environment(a_job(env_files=(str(file),), user="nobody"), a_run(), "/tmp/out.log")
    assert (env["LD_PRELOAD"], env["GREETING"]) == ("/home/x/y.so", "hello")  # it is root's

    os.chown(file, 65534, 65534)
    with pytest.raises(StartError, match=r"sets LD_PRELOAD, PATH, which.*: remove .*or set allow_env: \[LD_PRELOAD, PATH\]"):
        environment(a_job(env_files=(str(file),), user="nobody"), a_run(), "/tmp/out.log")
    with pytest.raises(StartError, match="sets PATH, which"):
        environment(a_job(env_files=(str(file),), user="nobody", allowed_env=("LD_PRELOAD",)), a_run(), "/tmp/out.log")
    job = a_job(env_files=(f"-{file}",), user="nobody", allowed_env=("LD_PRELOAD", "PATH"))
    assert environment(job, a_run(), "/tmp/out.log")["PATH"] == "/home/x"


@pytest.mark.parametrize(
    "body",
    [{"env": {"PATH": "/x"}}, {"user": "root"}, {"params": {"paths": "a\nLD_PRELOAD=x"}}, {"params": {"paths": "a\0b"}}],
)
def test_s24_s33_who_triggers_a_job_chooses_no_variable_no_second_line_and_no_user(running, body):
    assert running.client.ask("POST", f"{PREFIX}/jobs/knock/trigger", body).status == 422


@pytest.mark.parametrize(
    ("name", "decides"),
    [
        *(
            (name, True)
            for name in ("PATH", "LD_AUDIT", "PYTHONSTARTUP", "BASH_ENV", "MALLOC_TRACE", "IFS", "NODE_OPTIONS", "PERL5LIB")
        ),
        *((name, True) for name in ("PERL5OPT", "RUBYOPT", "GIT_SSH_COMMAND", "JAVA_TOOL_OPTIONS", "GCONV_PATH")),
        *((name, False) for name in ("NODE_ENV", "ENV", "MALLOC_ARENA_MAX", "http_proxy")),
        *((name, False) for name in ("GIT_AUTHOR_NAME", "MY_PATH", "PGPASSWORD", "OLD_X")),
    ],
)
def test_s24_what_decides_is_told_from_what_does_not(name, decides):
    assert decides_what_runs(name) is decides


# Which jobs run as the daemon


def test_check_config_tells_once_which_jobs_run_as_the_daemon():
    jobs = [a_job(f"job{number}", action="shell") for number in range(7)]
    jobs += [a_job("health", action="health_check"), a_job("hers", action="shell", user="alice")]

    assert own_user_note(jobs, 0) == (
        "note: programs run as root, the daemon's user, for 7 jobs (job0, job1, job2, job3, job4, …), "
        "and can do what the daemon can: `user:` says otherwise (docs/security.md)"
    )
    assert "the drop-in as-root.conf" in own_user_note(jobs, 999)
    assert own_user_note(jobs, 1000) is None  # a person's own daemon
    assert own_user_note(jobs[7:], 0) is None
