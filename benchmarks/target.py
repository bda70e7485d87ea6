"""The measured system: a separate schedulerd, its figures, its commits and its history, all observed from outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Burst, say

ROOT = Path(__file__).resolve().parents[1]
DAEMON = (sys.executable, "-m", "schedulerd")
LONGEST_BURST = 300.0  # seconds
START_SECONDS = 120.0  # how long a daemon may take to become ready
STOP_SECONDS = 20.0  # how long it may take to stop


# The daemon


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def status_of(self, path: str) -> int:
        """Request `path`, read the response and return its status."""
        self.request("GET", path)
        with self.getresponse() as response:
            response.read()
            return response.status


def daemon_env() -> dict[str, str]:
    """Return the environment of a daemon: it imports this checkout, and stores bytecode like an installed program."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**env, "PYTHONPATH": str(ROOT)}


def make_bytecode() -> None:
    """Start the program once, so that no measured start compiles it."""
    subprocess.run([*DAEMON, "--version"], check=True, env=daemon_env(), stdout=subprocess.DEVNULL)


class Daemon:
    """A schedulerd with a separate folder."""

    def __init__(self, folder: Path, jobs: str) -> None:
        """Write the configuration. `jobs` is the content of the key `jobs`."""
        self.folder = folder
        self.folder.mkdir(mode=0o700)
        self.socket = str(folder / "s")
        self.history = folder / "history.db"
        self.config = folder / "config.yaml"
        self.config.write_text(f"state_dir: .\nshutdown_grace: 2s\napi: {{socket: s}}\njobs:\n{jobs}", encoding="utf-8")
        self.config.chmod(0o600)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the daemon's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Start the daemon. Return the seconds until /readyz succeeds."""
        command = [*DAEMON, "--config", str(self.config)]
        began = time.monotonic()
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=daemon_env(), stdin=subprocess.DEVNULL, stderr=log
            )
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > began + START_SECONDS:
                raise RuntimeError(f"the daemon did not start:\n{(self.folder / 'log').read_text(encoding='utf-8')}")
            time.sleep(0.003)
        return time.monotonic() - began

    def _answers(self) -> bool:
        connection = UnixConnection(self.socket)
        try:
            return connection.status_of("/readyz") == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """Stop the daemon: with SIGTERM first."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            say(f"the daemon did not stop in {STOP_SECONDS:g} s: killed")
            process.kill()
            process.wait()

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of its threads so far, without its children. Precise if the kernel reports them."""
        found = 0
        try:
            for task in os.listdir(f"/proc/{self.pid}/task"):
                found += int(Path(f"/proc/{self.pid}/task/{task}/schedstat").read_text(encoding="ascii").split()[0])
            return found / 1e9
        except OSError:
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, field: str = "VmRSS") -> float:
        """Return its memory in megabytes (10^6): current (VmRSS) or peak (VmHWM)."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field))


@contextlib.contextmanager
def running(folder: Path, jobs: str) -> Iterator[tuple[Daemon, float]]:
    """Provide a daemon that is ready, with the seconds that its start took. It is always stopped afterwards."""
    daemon = Daemon(folder, jobs)
    try:
        yield daemon, daemon.start()
    finally:
        daemon.stop()
        shutil.rmtree(folder, ignore_errors=True)


# Its commits and its history


class WalCommits:
    """Counts the commits in the write-ahead log of SQLite: a frame with the size of the database ends a transaction."""

    def __init__(self, history: Path) -> None:
        self.path = Path(f"{history}-wal")
        self.commits = 0
        self.resets = 0
        self._salt = b""
        self._place = 32

    def look(self) -> None:
        """Count the commits since the last call. After a checkpoint, the log may restart: uncounted commits are lost."""
        try:
            with self.path.open("rb") as file:
                self._read(file.fileno())
        except FileNotFoundError:
            return

    def _read(self, descriptor: int) -> None:
        header = os.pread(descriptor, 32, 0)
        if len(header) < 32:
            return
        page, salt = struct.unpack(">I", header[8:12])[0], header[16:24]
        if salt != self._salt:
            self.resets += bool(self._salt)
            self._salt, self._place = salt, 32
        while len(frame := os.pread(descriptor, 24, self._place)) == 24 and frame[8:16] == salt:
            self.commits += frame[4:8] != b"\0\0\0\0"
            self._place += 24 + page


@contextlib.contextmanager
def counting_syncs(daemon: Daemon) -> Iterator[list[int]]:
    """Count fsync and fdatasync with strace. The list contains the number after the block."""
    out = daemon.folder / "syncs"
    command = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", str(out), "-p", str(daemon.pid)]
    found: list[int] = []
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        found.append(sum("sync(" in line for line in out.read_text(encoding="utf-8").splitlines()))


def await_end(daemon: Daemon, count: int, due: int, commits: WalCommits) -> None:
    """Wait until the history has the end of every run. It is read from outside, which does not affect the daemon."""
    ended = 0
    while ended < count and time.time() < due + LONGEST_BURST:
        time.sleep(0.05)
        commits.look()
        with contextlib.closing(open_history(daemon.history)) as history:
            (ended,) = history.execute("SELECT count(*) FROM runs WHERE finished_at IS NOT NULL").fetchone()
    time.sleep(0.2)
    commits.look()


def open_history(path: Path) -> sqlite3.Connection:
    """Open the daemon's history for reading."""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", 10, uri=True)


def read_history(path: Path, count: int, due: int, own: float) -> tuple[Burst, int, int, int]:
    """Return the results from the ledger: the burst, and the numbers of rows, of lost runs and of doubled runs."""
    columns = "job_id, scheduled_at, status, started_at, finished_at, details"
    with contextlib.closing(open_history(path)) as history:
        runs = history.execute(f"SELECT {columns} FROM runs").fetchall()
    succeeded = {(job_id, at) for job_id, at, status, *_ in runs if status == "success" and at == due * 1_000_000}
    doubled = len(runs) - len({(job_id, at) for job_id, at, *_ in runs})
    done = [run for run in runs if run[3] is not None and run[4] is not None]
    if not done:
        raise RuntimeError("nothing was run")
    late = sorted((started - at) / 1000 for _, at, _, started, *_ in done)
    span = (max(run[4] for run in done) - min(run[3] for run in done)) / 1e6
    of_children = sum(json.loads(run[5] or "{}").get("cpu_seconds", 0.0) for run in done)
    return Burst(late, span, own, of_children), len(runs), count - len(succeeded), doubled
