"""Processes as proc(5) shows them: which of them belong to a run, and whether a process id was reused."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterable
from contextlib import suppress

from ...host.descriptors import raise_shortage

MARK = b"SCHEDULERD_RUN_ID="
TICKS = os.sysconf("SC_CLK_TCK")
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Process:
    """A living process, from /proc/PID/stat. `began` is its start in clock ticks since boot."""

    __slots__ = ("began", "group", "parent", "pid", "session", "state")

    def __init__(self, pid: int, stat: bytes) -> None:
        fields = stat.rpartition(b")")[2].split()
        self.pid = pid
        self.state = fields[0]
        self.parent, self.group, self.session = int(fields[1]), int(fields[2]), int(fields[3])
        self.began = int(fields[19])


def boot_id() -> str:
    """Return the identifier of this boot of the host."""
    with open(_BOOT_ID) as file:
        return file.read().strip()


def process(pid: int) -> Process | None:
    """Return a living process (zombies do not count), or None. Raise OSError when a shortage hides it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            found = Process(pid, file.read())
    except OSError as error:
        raise_shortage(error)
        return None
    except (IndexError, ValueError):
        return None
    return None if found.state in (b"Z", b"X") else found


def ticks(boottime: float) -> int:
    """Return an instant (seconds since boot) in the clock ticks of `Process.began`."""
    return int(boottime * TICKS)


def processes() -> list[Process]:
    """Return all living processes. Raise OSError when they cannot all be listed."""
    return [found for name in os.listdir("/proc") if name.isdigit() and (found := process(int(name)))]


def children_of_mine() -> list[int] | None:
    """Return the process ids of our children, zombies included; None where the kernel does not list them."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return [int(each) for each in file.read().split()]
    except OSError:
        return None


def run_of(pid: int) -> str | None:
    """Return the run that a process names in its initial environment, or None. Raise OSError."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError as error:
        raise_shortage(error)
        return None
    return next((each[len(MARK) :].decode("ascii", "replace") for each in variables if each.startswith(MARK)), None)


def family(leader: int, has_ended: bool, all_of_them: Iterable[Process], adopted: Collection[int]) -> list[Process]:
    """Return the processes of a run: its leader's session and group, the `adopted`, and the descendants of all of them.

    Adopted are processes whose parents have died and that may have left the session by setsid(2). They became our
    children, and only their environment identifies their run (`run_of`).

    The kernel reuses the process id of a leader that `has_ended`, but not while its session or group has processes. So a
    process that has this id is not of the run, and neither are those in its session and group.
    """
    living = list(all_of_them)
    is_taken = has_ended and any(each.pid == leader for each in living)
    found = {each.pid for each in living if not is_taken and leader in (each.pid, each.session, each.group)}
    found |= {each.pid for each in living if each.pid in adopted}
    by_parent: dict[int, list[int]] = {}
    for each in living:
        by_parent.setdefault(each.parent, []).append(each.pid)
    waiting = list(found)
    while waiting:
        fresh = [pid for pid in by_parent.get(waiting.pop(), ()) if pid not in found]
        found.update(fresh)
        waiting += fresh
    return [each for each in living if each.pid in found]


def marked(run_id: str) -> Process | None:
    """Return the oldest process that names a run in its environment, or None."""
    found = [each for each in processes() if run_of(each.pid) == run_id]
    return min(found, key=lambda each: each.began, default=None)


def send(target: Process, number: int) -> bool:
    """Signal a process unless its process id was reused.

    Return False when that is not permitted, because it runs as another user. Raise OSError.
    """
    try:
        descriptor = os.pidfd_open(target.pid)
    except OSError as error:
        raise_shortage(error)
        return True
    try:
        now = process(target.pid)
        if now is not None and now.began == target.began:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
    except PermissionError:
        return False
    finally:
        os.close(descriptor)
    return True
