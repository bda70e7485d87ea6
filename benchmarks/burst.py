"""Measure a burst against the bare limit of this machine: jobs that are all due at the same second.

One run prints: what the machine can do at most (C, then a bare loop in Python), what schedulerd does, alone and while
a caller asks for the list of jobs, the ratios, how many requests it answers, what it costs when it is idle, and how a
fleet of jobs that are not due starts. Nothing is asserted about time; the exit status is 1 when a run was lost or
doubled, and 2 when something could not be measured. Limits and bursts take turns, several rounds, and medians are
shown, because machines are never quiet.

All jobs are due at the Unix second T because they are `every: {T}s`: intervals are counted from 1970, so T is the first
multiple that is still to come, and the next one is decades away.

Lateness is measured in the same way everywhere: the moment just before a child is started, less the moment it was due.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import os
import platform
import resource
import select
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PROGRAM = "/bin/true"
DAEMON = (sys.executable, "-m", "schedulerd")
JOBS_PATH = "/api/v1/scheduler/jobs"
LIBRARIES = ("aiohttp", "PyYAML", "schedule", "psutil")
ASK_EVERY = 0.005  # seconds between two requests of the caller who asks during a burst
LONGEST_BURST = 300.0  # seconds
START_SECONDS = 120.0  # how long a daemon may take to become ready
STOP_SECONDS = 20.0  # how long it may take to stop
QUIET = 1.0  # seconds: before the burst, from when on everything is watched


@dataclass
class Burst:
    """What was seen of one burst: `late` are milliseconds, ascending; `own` and `children` are CPU seconds."""

    late: list[float]
    span: float
    own: float | None
    children: float

    def cells(self, name: str) -> list[str]:
        """Return its line of the table."""
        count = max(1, len(self.late))
        own = "?" if self.own is None else f"{self.own / count * 1000:.3f}"
        total = "?" if self.own is None else f"{(self.own + self.children) / count * 1000:.3f}"
        p50, p99, last = (f"{percentile(self.late, share):.1f}" for share in (50, 99, 100))
        return [name, p50, p99, last, f"{self.span:.3f}", f"{count / self.span:.0f}", own, total]


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile; not a number when there are no values."""
    if not ascending:
        return math.nan
    return ascending[max(0, math.ceil(share / 100 * len(ascending)) - 1)]


def say(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, *rows):
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        say("  ".join([first, *others]).rstrip())


# The bare limit


def c_limit(folder: Path, children: int) -> Burst | None:
    """Return what four threads of posix_spawn and waitpid do in C; None when there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = folder / "spawn_limit"
    if not program.exists():
        subprocess.run([compiler, "-O2", "-pthread", "-o", program, HERE / "spawn_limit.c"], check=True)
    *starts, last = subprocess.run(
        [program, str(children)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    span, own, of_children = map(float, last.split())
    return Burst(sorted(map(float, starts)), span, own, of_children)


def python_floor(folder: Path, children: int) -> Burst:
    """Return what a bare loop does in Python, in a process of its own."""
    out = folder / f"floor-{time.monotonic_ns()}"  # its files stay until the end: see file_cost
    out.mkdir()
    command = [sys.executable, __file__, "--as", "floor", str(children), str(out)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Burst(**json.loads(told))


def be_floor(children: int, folder: str) -> None:
    """Start children in groups of their own, their output in files, and reap them by pidfd and epoll: nothing else."""
    allow_many_files()
    epoll, late = select.epoll(), []
    pids: dict[int, int] = {}
    before_own, before_children = cpu_of(resource.RUSAGE_SELF), cpu_of(resource.RUSAGE_CHILDREN)
    origin = time.monotonic()
    to_start = iter(range(children))
    number = next(to_start, None)
    while number is not None or pids:
        if number is not None:
            late.append((time.monotonic() - origin) * 1000)
            pid = spawn(f"{folder}/{number}.log")
            pidfd = os.pidfd_open(pid)
            pids[pidfd] = pid
            epoll.register(pidfd, select.EPOLLIN)
            number = next(to_start, None)
        for pidfd, _ in epoll.poll(-1 if number is None else 0):
            epoll.unregister(pidfd)
            os.close(pidfd)
            os.waitpid(pids.pop(pidfd), 0)
    span = time.monotonic() - origin
    own, of_children = cpu_of(resource.RUSAGE_SELF) - before_own, cpu_of(resource.RUSAGE_CHILDREN) - before_children
    print(json.dumps({"late": sorted(late), "span": span, "own": own, "children": of_children}))


def spawn(output: str) -> int:
    """Start one child of the floor."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(PROGRAM, [PROGRAM], {"PATH": "/usr/bin:/bin"}, setsid=True, file_actions=actions)


def cpu_of(who: int) -> float:
    """Return the CPU seconds that getrusage tells."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def allow_many_files() -> None:
    """Let this process open as many files as the system allows."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


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
        """Ask for `path`, read the answer and return its status."""
        self.request("GET", path)
        with self.getresponse() as response:
            response.read()
            return response.status


def daemon_env() -> dict[str, str]:
    """Return the environment of a daemon: it finds this checkout, and keeps bytecode as an installed program does."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**env, "PYTHONPATH": str(ROOT)}


def make_bytecode() -> None:
    """Let the program start once, so that no start that is measured compiles it."""
    subprocess.run([*DAEMON, "--version"], check=True, env=daemon_env(), stdout=subprocess.DEVNULL)


class Daemon:
    """One schedulerd with a folder of its own."""

    def __init__(self, folder: Path, jobs: str) -> None:
        """Write the configuration; `jobs` is what stands under `jobs:`."""
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
        """Start, and return the seconds until /readyz says yes."""
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
        """Stop it: asked politely first."""
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
        """Return the CPU seconds of its threads so far, without its children's; precise if the kernel tells."""
        found = 0
        try:
            for task in os.listdir(f"/proc/{self.pid}/task"):
                found += int(Path(f"/proc/{self.pid}/task/{task}/schedstat").read_text(encoding="ascii").split()[0])
            return found / 1e9
        except OSError:
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, field: str = "VmRSS") -> float:
        """Return megabytes (10^6) of memory, now (VmRSS) or at most so far (VmHWM)."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field))


@contextlib.contextmanager
def running(folder: Path, jobs: str) -> Iterator[tuple[Daemon, float]]:
    """Lend a daemon that is ready, with the seconds it took; stop it whatever happens."""
    daemon = Daemon(folder, jobs)
    try:
        yield daemon, daemon.start()
    finally:
        daemon.stop()
        shutil.rmtree(folder, ignore_errors=True)


class WalCommits:
    """Counts the commits in SQLite's write-ahead log: frames that tell the database's size end a transaction."""

    def __init__(self, history: Path) -> None:
        self.path = Path(f"{history}-wal")
        self.commits = 0
        self.resets = 0
        self._salt = b""
        self._place = 32

    def look(self) -> None:
        """Count what came since the last look. After a checkpoint the log may begin anew: what was not seen is lost."""
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


# The burst


@dataclass
class Seen:
    """Everything that was seen of one daemon."""

    ready: float
    rss: float
    peak: float
    burst: Burst
    rows: int
    lost: int
    doubled: int
    commits: int
    resets: int
    asked: list[float]
    syncs: int | None
    after: list[str]


def due_jobs(count: int, due: int) -> str:
    """Return the YAML of jobs that are all due at the second `due`."""
    return "".join(f"  job-{number}: {{every: {due}s, command: [{PROGRAM}]}}\n" for number in range(count))


def measure_burst(
    options: argparse.Namespace, folder: Path, *, ask: bool = False, trace: bool = False, last: bool = False
) -> Seen:
    """Let a daemon meet one burst; afterwards, when it is the `last` one, measure requests and idleness too."""
    due = int(time.time() + options.lead) + 1
    with running(folder, due_jobs(options.jobs, due)) as (daemon, ready):
        if time.time() > due - QUIET - 0.2:
            raise RuntimeError(f"the daemon was ready too late: give it more time with --lead (now {options.lead:g})")
        rss = daemon.memory()
        with contextlib.ExitStack() as helpers:
            syncs = helpers.enter_context(counting_syncs(daemon)) if trace else []
            asking = helpers.enter_context(helper("ask", daemon.socket, str(due))) if ask else None
            commits = WalCommits(daemon.history)
            sleep_until(due - QUIET / 2)
            commits.look()
            commits.commits = 0
            before = daemon.cpu_seconds()
            await_end(daemon, options.jobs, due, commits)
            own = daemon.cpu_seconds() - before
            asked = sorted(json.loads(end_of(asking))) if asking else []
        burst, rows, lost, doubled = read_history(daemon.history, options.jobs, due, own)
        peak = daemon.memory("VmHWM")
        return Seen(
            ready, rss, peak, burst, rows, lost, doubled, commits.commits, commits.resets, asked,
            syncs[0] if syncs else None, after_burst(options, daemon) if last else [],
        )  # fmt: skip


def sleep_until(moment: float) -> None:
    """Sleep until a Unix time."""
    time.sleep(max(0.0, moment - time.time()))


def await_end(daemon: Daemon, count: int, due: int, commits: WalCommits) -> None:
    """Wait until every run has its end in the history, which is read from outside: that does not disturb the daemon."""
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
    """Return what the ledger tells: the burst, how many rows it has, and how many runs were lost and doubled."""
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


@contextlib.contextmanager
def counting_syncs(daemon: Daemon) -> Iterator[list[int]]:
    """Let strace count fsync and fdatasync; the list has the number when the block is left."""
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


# Callers, each in a process of its own


@contextlib.contextmanager
def helper(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Lend a process of this script that plays another part; end it whatever happens."""
    process = subprocess.Popen([sys.executable, __file__, "--as", *words], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def end_of(process: subprocess.Popen[str]) -> str:
    """Ask a helper to end, and return what it has to tell."""
    process.terminate()
    return process.communicate(timeout=60)[0]


def be_asking(path: str, due: int) -> None:
    """Ask for the list of jobs again and again until SIGTERM; tell the milliseconds of the requests since `due`."""
    asked: list[float] = []
    is_over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: is_over.append(number))
    connection = UnixConnection(path)
    sleep_until(due - QUIET)
    while not is_over:
        start = time.monotonic()
        if connection.status_of(JOBS_PATH) != 200:
            raise RuntimeError("the list of jobs was refused")
        took = time.monotonic() - start
        if time.time() >= due:
            asked.append(took * 1000)
        time.sleep(ASK_EVERY)
    print(json.dumps(asked))


def be_crowd(path: str, count: int, seconds: float) -> None:
    """Ask for the list on many connections at once, as cheaply as Python can: answers are counted, not parsed."""
    request = f"GET {JOBS_PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    size = size_of_answer(path, request)
    epoll, buffer, missing, sockets = select.epoll(), bytearray(1 << 20), {}, {}
    for _ in range(count):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(path)
        sockets[connection.fileno()], missing[connection.fileno()] = connection, size
        epoll.register(connection.fileno(), select.EPOLLIN)
        connection.sendall(request)
    answers, start, cpu = 0, time.monotonic(), time.process_time()
    while time.monotonic() < start + seconds:
        for descriptor, _ in epoll.poll(0.1):
            got = sockets[descriptor].recv_into(buffer)
            missing[descriptor] -= got
            if got == 0 or missing[descriptor] < 0:
                raise RuntimeError("an answer was cut short, or the list changed its size")
            if missing[descriptor] == 0:
                answers += 1
                missing[descriptor] = size
                sockets[descriptor].sendall(request)
    took = time.monotonic() - start
    cores = (time.process_time() - cpu) / took
    print(json.dumps({"requests": answers, "seconds": took, "size": size, "cores": cores}))


def size_of_answer(path: str, request: bytes) -> int:
    """Return the bytes of an answer, head and body, which is always the same while nothing changes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        connection.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
    head = data.partition(b"\r\n\r\n")[0]
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return len(head) + 4 + int(length.partition(b":")[2])


# When nothing is due


def after_burst(options: argparse.Namespace, daemon: Daemon) -> list[str]:
    """Measure requests a second and the cost of idleness; return lines to print."""
    lines = []
    if options.list:
        before = daemon.cpu_seconds()
        with helper("crowd", daemon.socket, str(options.connections), str(options.seconds)) as crowd:
            told = json.loads(crowd.communicate(timeout=60)[0])
        cpu = daemon.cpu_seconds() - before
        lines.append(
            f"list of {options.jobs} jobs: {told['requests'] / told['seconds']:.0f} requests/s on "
            f"{options.connections} connections ({told['size'] / 1000:.0f} kB an answer; the caller used "
            f"{told['cores']:.2f} cores, schedulerd {cpu / told['seconds']:.2f})"
        )
    if options.idle:
        lines.append(f"idle after the burst: {idleness(daemon, options.idle)}")
    return lines


def idleness(daemon: Daemon, seconds: float) -> str:
    """Return what a daemon costs while nothing is due, in words."""
    before = daemon.cpu_seconds()
    time.sleep(seconds)
    used = daemon.cpu_seconds() - before
    return f"{used:.4f} CPU s in {seconds:g} s ({used / seconds * 60:.4f} a minute), RSS {daemon.memory():.1f} MB"


def cron_jobs(count: int) -> str:
    """Return the YAML of jobs that are due once a year, none of them in the month after this one."""
    month = time.gmtime().tm_mon % 12
    months = [(month + ahead) % 12 + 1 for ahead in range(1, 10)]
    times = (f"{number % 60} {number // 60 % 24} 2 {months[number % 9]} *" for number in range(count))
    return "".join(f"  job-{number}: {{cron: '{at}', command: [{PROGRAM}]}}\n" for number, at in enumerate(times))


def measure_fleet(folder: Path, count: int, idle: float) -> list[str]:
    """Start a daemon with many jobs that are not due, twice: with an empty history, and with the one it left."""
    with running(folder, cron_jobs(count)) as (daemon, first):
        daemon.stop()
        again = daemon.start()
        took = f"ready after {first:.2f} s the first time, {again:.2f} s then"
        lines = [f"{count} cron jobs: {took}; RSS {daemon.memory():.1f} MB"]
        if idle:
            lines.append(f"idle with {count} jobs: {idleness(daemon, idle)}")
    return lines


# The whole


def print_machine(folder: Path) -> None:
    """Print what the numbers depend on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = []
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    processor = models[0] if models else platform.machine()
    load = os.getloadavg()[0]
    say(f"machine: {os.cpu_count()} cores ({processor}), Linux {platform.release()}, load {load:.2f}")
    say(f"with: Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {', '.join(versions)}")
    say(f"state on: {file_system_of(folder)}, where a new file costs {file_cost(folder) * 1e6:.0f} µs")


def file_cost(folder: Path, count: int = 500) -> float:
    """Return the seconds that a new file takes, of which each run needs one for its output.

    On ext4 without a journal it depends on how many files were deleted in the last minutes, by earlier runs of this
    script too; then `--dir` on another file system gives steadier figures.
    """
    there = folder / "files"
    there.mkdir()
    start = time.perf_counter()
    for number in range(count):
        os.close(os.open(there / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return (time.perf_counter() - start) / count


def file_system_of(folder: Path) -> str:
    """Return the type of the file system that a folder is on."""
    found = ("", "?")
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _device, mount, kind, *_ = line.split()
        if (str(folder) + "/").startswith(mount.rstrip("/") + "/") and len(mount) >= len(found[0]):
            found = (mount, kind)
    return found[1]


@dataclass
class Round:
    """One turn of each: the limits, and schedulerd."""

    limit: Burst | None
    floor: Burst
    alone: Seen

    def ratios(self) -> list[float]:
        """Return how many times the limits' p99 lateness schedulerd's is: of the C limit, and of the Python floor."""
        mine = percentile(self.alone.burst.late, 99)
        return [mine / percentile(burst.late, 99) if burst else math.nan for burst in (self.limit, self.floor)]


def typical(bursts: Sequence[Burst | None]) -> Burst | None:
    """Return the one with the median p99."""
    found = sorted(filter(None, bursts), key=lambda burst: percentile(burst.late, 99))
    return found[len(found) // 2] if found else None


def measure(options: argparse.Namespace, folder: Path) -> int:
    """Measure and print everything; return the exit status."""
    make_bytecode()
    print_machine(folder)
    say()
    rounds = []
    for number in range(options.rounds):
        limit, floor = c_limit(folder, options.jobs), python_floor(folder, options.jobs)
        rounds.append(Round(limit, floor, measure_burst(options, folder / f"d{number}")))
    asked = measure_burst(options, folder / "asked", ask=True, last=True)
    bursts = {
        "C limit, 4 threads": typical([each.limit for each in rounds]),
        "Python floor": typical([each.floor for each in rounds]),
        "schedulerd": typical([each.alone.burst for each in rounds]),
        "schedulerd, asked meanwhile": asked.burst,
    }
    heads = ["p50 ms", "p99 ms", "max ms", "span s", "runs/s", "CPU s/1000: own", "with children"]
    print_table([f"{options.jobs} due at once", *heads], [burst.cells(name) for name, burst in bursts.items() if burst])
    say()
    print_rounds(options.jobs, rounds)
    print_asked(asked)
    everything = [*(each.alone for each in rounds), asked]
    if options.strace:
        everything.append(traced := measure_burst(options, folder / "traced", trace=True))
        say(f"{traced.syncs} calls of fsync or fdatasync, {traced.commits} commits, in a burst that strace slowed down")
    for line in measure_fleet(folder / "fleet", options.fleet, options.idle) if options.fleet else ():
        say(line)
    return 1 if any(one.lost or one.doubled for one in everything) else 0


def print_rounds(count: int, rounds: Sequence[Round]) -> None:
    """Print what the table has no column for: what was seen in each round."""
    by_limit = zip(*(each.ratios() for each in rounds), strict=True)
    for what, ratios in zip(("C limit", "Python floor"), by_limit, strict=True):
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        say(f"p99 lateness is {sorted(ratios)[len(ratios) // 2]:.2f} × the {what}'s (rounds: {each})")
    for seen in (each.alone for each in rounds):
        say(
            f"{seen.rows} rows for {count} jobs: LOST {seen.lost}, DOUBLE {seen.doubled}; {commits_of(seen)}; "
            f"ready after {seen.ready:.3f} s, RSS {seen.rss:.1f} MB, at most {seen.peak:.1f} MB"
        )


def commits_of(seen: Seen) -> str:
    """Return how many commits were seen, in words."""
    reset = f" at least (checkpoints let the log begin anew {seen.resets} times)" if seen.resets else ""
    return f"{seen.commits} commits{reset}"


def print_asked(seen: Seen) -> None:
    """Print how the caller was answered during the burst, and what was measured behind it."""
    p50, p99, last = (percentile(seen.asked, share) for share in (50, 99, 100))
    say(f"asked meanwhile: LOST {seen.lost}, DOUBLE {seen.doubled}; {commits_of(seen)}, at most {seen.peak:.1f} MB")
    say(f"list of jobs during the burst: p50 {p50:.1f} ms, p99 {p99:.1f}, max {last:.1f} ({len(seen.asked)} requests)")
    for line in seen.after:
        say(line)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description="Measure a burst of jobs against the bare limit of this machine.")
    made.add_argument("--jobs", type=int, default=1000, help="how many are due at once (%(default)s)")
    made.add_argument("--lead", type=float, help="seconds from start to burst (default: 2.5, more for more jobs)")
    made.add_argument("--rounds", type=int, default=3, help="of limits and bursts (%(default)s)")
    made.add_argument("--idle", type=float, default=10, help="seconds of idleness to measure; 0 is none (%(default)s)")
    made.add_argument("--list", action=argparse.BooleanOptionalAction, default=True, help="measure requests a second")
    made.add_argument("--connections", type=int, default=16, help="of the callers of --list (%(default)s)")
    made.add_argument("--seconds", type=float, default=3, help="how long they call (%(default)s)")
    made.add_argument("--fleet", type=int, default=10_000, help="so many jobs that aren't due; 0 is none (%(default)s)")
    made.add_argument("--strace", action="store_true", help="another burst in which strace counts fsync and fdatasync")
    made.add_argument("--dir", help="where the temporary folder is made (default: the system's)")
    made.add_argument("--as", nargs="+", dest="part", help=argparse.SUPPRESS)  # the parts of the helper processes
    return made


def play(part: str, words: list[str]) -> int:
    """Be one of the helper processes."""
    if part == "floor":
        be_floor(int(words[0]), words[1])
    elif part == "ask":
        be_asking(words[0], int(words[1]))
    else:
        be_crowd(words[0], int(words[1]), float(words[2]))
    return 0


def stop_on_signal(number: int, _frame: Any) -> None:
    """Turn a signal into an exit that cleans up."""
    sys.exit(128 + number)


def main() -> int:
    """Run; return the exit status."""
    options = parser().parse_args()
    if options.part:
        return play(options.part[0], options.part[1:])
    options.lead = options.lead or 2.5 + options.jobs / 2000
    options.strace = options.strace and shutil.which("strace") is not None
    signal.signal(signal.SIGTERM, stop_on_signal)
    signal.signal(signal.SIGHUP, stop_on_signal)
    try:
        with tempfile.TemporaryDirectory(prefix="burst-", dir=options.dir) as folder:
            return measure(options, Path(folder))
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"burst: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
