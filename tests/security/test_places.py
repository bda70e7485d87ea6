"""S1, S7, S8, S36: only the socket is there unasked, it is nobody else's at any moment, and so is what the daemon writes."""

import errno
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from schedulerd.api.listeners import bind_tcp, bind_unix
from schedulerd.config.config import ApiSettings
from schedulerd.config.loader import load
from schedulerd.core.errors import AlreadyRunningError, SchedulerdError, UnsafeError
from tests.support.daemon import RunningDaemon

NOBODY, GAMES = 65534, 60
STARTS = int(os.environ.get("SCHEDULERD_TEST_STARTS", "200"))
needs_root = pytest.mark.root("only root can become somebody else")
CALLS = (
    "socket,bind,chmod,fchmod,fchmodat,chown,fchown,fchownat,lchown,listen,umask,unlink,unlinkat,rename,renameat,renameat2"
)


def test_s1_no_port_is_opened_unasked_and_none_that_sends_tokens_in_the_clear(tmp_path):
    """What the package installs listens on its socket only: tests/deb/installed.py looks at the real one."""
    (tmp_path / "config.yaml").write_text("jobs: {}\n")
    (tmp_path / "config.yaml").chmod(0o600)

    assert bind_tcp(load(str(tmp_path / "config.yaml")).api) is None
    for host in ("0.0.0.0", "::", "192.0.2.1", "host.example"):
        with pytest.raises(UnsafeError, match="tokens would cross the network unencrypted"):
            bind_tcp(ApiSettings("s", host=host))


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_s7_the_socket_is_its_owners_alone_until_its_group_is_set_and_listens_only_then(tmp_path):
    """In the order in which the kernel saw it, so that at no moment anybody can connect who may not later."""
    path, calls = tmp_path / "s", tmp_path / "calls"
    code = (
        "import sys; from schedulerd.config.config import ApiSettings; from schedulerd.api.listeners import bind_unix;"
        "print('here', file=sys.stderr); bind_unix(ApiSettings(sys.argv[1], 'games'), sys.argv[2])"
    )
    command = [
        "strace",
        "-qq",
        "-o",
        calls,
        "-e",
        f"trace=write,{CALLS}",
        sys.executable,
        "-c",
        code,
        path,
        tmp_path / "state",
    ]
    subprocess.run(command, check=True, capture_output=True)
    order = calls.read_text().partition("here")[2]

    bind = rf"bind\((\d+), [^\n]*{re.escape(str(path))}"
    wanted = (r"umask\(0177\)", bind, r"umask\(", r"chown[^\n]*, 60\b", r"chmod[^\n]*, 0660\)", r"listen\(\1, ")
    assert re.search(r".*?".join(wanted), order, re.DOTALL), order
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


@pytest.fixture
def place():
    """A folder that everybody gets to; pytest closes its own whenever another session begins."""
    with TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@contextmanager
def somebody(act):
    """Another user of the host, who does something over and over."""
    pid = os.fork()
    if not pid:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        while True:
            with suppress(OSError):
                act()
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def bind_often(path, place, after):
    """Make the daemon's socket many times, and do something after each."""
    for _ in range(STARTS):
        path.unlink(missing_ok=True)
        with suppress(SchedulerdError), closing(bind_unix(ApiSettings(str(path), "games"), str(place))):
            after()


@needs_root
def test_s7_nobody_gets_in_while_the_socket_is_made(place):
    path, came = place / "s", place / "came"
    came.mkdir()
    came.chmod(0o777)

    def connect():
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
            (came / "in").touch()

    with somebody(connect):
        bind_often(path, place, lambda: None)

    assert list(came.iterdir()) == []


@needs_root
def test_s7_who_owns_the_folder_of_the_socket_cannot_have_another_file_opened(place):
    """Root gives the socket to a group: a link that takes its place at that moment leads nowhere."""
    precious, theirs = place / "precious", place / "theirs"
    precious.touch(mode=0o600)
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    touched = []

    def replace():
        if stat.S_ISSOCK((theirs / "s").lstat().st_mode):
            (theirs / "link").symlink_to(precious)
            (theirs / "link").rename(theirs / "s")

    def look():
        found = precious.stat()
        if (found.st_gid, stat.S_IMODE(found.st_mode)) != (0, 0o600):
            touched.append(oct(found.st_mode))

    with somebody(replace):
        bind_often(theirs / "s", place, look)
    look()

    assert touched == []


@needs_root
def test_s7_the_socket_is_for_its_group_and_for_nobody_else(place):
    path = place / "s"

    def connects(groups):
        pid = os.fork()
        if not pid:
            os.setgroups(groups)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX) as caller:
                os._exit(caller.connect_ex(str(path)))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    with closing(bind_unix(ApiSettings(str(path), "games"), str(place / "state"))):
        assert (connects([]), connects([GAMES])) == (errno.EACCES, 0)


def test_s8_a_socket_that_somebody_answers_on_is_not_taken_and_a_stale_one_is(tmp_path):
    path = tmp_path / "s"
    with closing(bind_unix(ApiSettings(str(path)), str(tmp_path))):
        before = path.lstat()
        with pytest.raises(AlreadyRunningError, match="another process listens on"):
            bind_unix(ApiSettings(str(path)), str(tmp_path))
        assert path.lstat() == before
    with closing(bind_unix(ApiSettings(str(path)), str(tmp_path))), socket.socket(socket.AF_UNIX) as caller:
        assert caller.connect_ex(str(path)) == 0


@pytest.mark.parametrize("kind", ["file", "link to a file", "link to a socket", "link to nowhere", "folder", "fifo"])
def test_s8_what_is_no_socket_is_refused_and_left_as_it_was(tmp_path, kind):
    path, other = tmp_path / "s", tmp_path / "other"
    makers = {"file": path.touch, "folder": path.mkdir, "fifo": lambda: os.mkfifo(path)}
    makers.get(kind, lambda: path.symlink_to(other))()
    with socket.socket(socket.AF_UNIX) as live:
        if kind == "link to a socket":
            live.bind(str(other))
        elif kind == "link to a file":
            other.write_text("precious")
        before = path.lstat(), other.exists() and other.lstat()

        with pytest.raises(SchedulerdError, match="is not a socket: move it"):
            bind_unix(ApiSettings(str(path)), str(tmp_path))

    assert (path.lstat(), other.exists() and other.lstat()) == before


def test_s36_nothing_below_the_state_directory_is_for_others_whatever_the_umask(tmp_path):
    shell = "echo hi; echo '{}' >$SCHEDULERD_RESULT_FILE"
    jobs = {
        "a": {"shell": shell},
        "copy": {"backup": {"source": "history", "directory": "state/backups", "keep": {"last": 2}}},
    }
    with closing(RunningDaemon(tmp_path, {"jobs": jobs, "api": {"listen": "127.0.0.1:0"}})) as daemon:
        daemon.prefix = ["sh", "-c", 'umask 0; exec "$@"', "sh"]
        daemon.start()
        assert daemon.client.post("jobs/a/trigger").body["result"]["status"] == "success"
        state = tmp_path / "state"
        open_to_others = {str(path.relative_to(state)) for path in state.rglob("*") if path.lstat().st_mode & 0o077}

    assert open_to_others == set()
    assert stat.S_IMODE(state.stat().st_mode) & 0o077 == 0
