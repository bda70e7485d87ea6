"""What a run of the tests must not leave behind: processes, mounts and control groups."""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

VARIABLE = "SCHEDULERD_TEST_RUN"  # in the environment of each process that the tests start
SECONDS_TO_END = 15.0  # for processes that have been sent a signal


def name_run() -> str:
    """Give this run of the tests a name of its own, which its workers and what they start inherit."""
    return os.environ.setdefault(VARIABLE, uuid.uuid4().hex[:12])


def leftovers(run: str, folder: Path) -> list[str]:
    """Return what is left of a run whose files are below `folder`; processes have a while to end."""
    give_up = time.monotonic() + SECONDS_TO_END
    while (left := list(_processes(run, folder))) and time.monotonic() < give_up:
        time.sleep(0.1)
    return [*left, *_mounts(folder), *_groups(run)]


def _processes(run: str, folder: Path) -> Iterator[str]:
    signs = (f"{VARIABLE}={run}".encode(), os.fsencode(folder) + b"/")
    for name in filter(str.isdigit, os.listdir("/proc")):
        if int(name) in (os.getpid(), os.getppid()):
            continue
        with suppress(OSError):
            words = Path("/proc", name, "cmdline").read_bytes()
            place = os.fsencode(os.readlink(f"/proc/{name}/cwd")) + b"/"
            if any(sign in text for text in (words, Path("/proc", name, "environ").read_bytes(), place) for sign in signs):
                shown = b" ".join((b"in", place, words.replace(bytes(1), b" "))).decode(errors="replace")
                yield f"process {name} {shown[:300]}"


def processes_named(text: str) -> list[int]:
    """Return the processes, but for this one, whose command line contains a text."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if int(name) != os.getpid() and text.encode() in Path("/proc", name, "cmdline").read_bytes():
                found.append(int(name))
    return found


def _mounts(folder: Path) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[4].startswith(f"{folder}/"):
            yield f"mount {line.split()[4]}"


def _groups(run: str) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup" in line:
            for group in Path(line.split()[4]).glob(f"schedulerd-test-{run}-*"):
                yield f"control group {group}"
