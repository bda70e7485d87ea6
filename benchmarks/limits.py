"""The bare limit of this machine: children started as fast as possible, in C, and in a bare loop in Python.

Run as a program, this module is the bare loop.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

from figures import Burst

HERE = Path(__file__).resolve().parent
PROGRAM = "/bin/true"  # the program of every child, here and in the jobs; spawn_limit.c has its own constant


def c_limit(folder: Path, children: int, keeps_output: bool = False) -> Burst | None:
    """Measure four threads that call posix_spawn and waitpid in C. Return None without a compiler.

    With `keeps_output`, each child leads a session and writes to a separate file, as a run does.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = folder / "spawn_limit"
    if not program.exists():
        subprocess.run([compiler, "-O2", "-pthread", "-o", program, HERE / "spawn_limit.c"], check=True)
    command = [program, str(children)]
    if keeps_output:
        outputs = folder / f"limit-{time.monotonic_ns()}"
        outputs.mkdir()
        command.append(outputs)
    *starts, last = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    span, own, of_children = map(float, last.split())
    return Burst(sorted(map(float, starts)), span, own, of_children)


def python_floor(folder: Path, children: int) -> Burst:
    """Measure a bare loop in Python, in a separate process."""
    out = folder / f"floor-{time.monotonic_ns()}"  # its files are kept until the end: see file_cost in machine.py
    out.mkdir()
    command = [sys.executable, __file__, str(children), str(out)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Burst(**json.loads(told))


def be_floor(children: int, folder: str) -> None:
    """Start children in separate process groups, with output in files, and reap them by pidfd and epoll, and no more."""
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
    """Return the CPU seconds that getrusage reports."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def allow_many_files() -> None:
    """Raise the limit of open files of this process to the maximum."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    be_floor(int(sys.argv[1]), sys.argv[2])
