"""What proc(5) tells about processes: which of them belong to a run, and whether a process is still the one it was."""

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
    """A process that lives, as /proc/PID/stat tells it; `began` is its start in clock ticks since the host's."""

    __slots__ = ("began", "group", "parent", "pid", "session", "state")

    def __init__(self, pid: int, stat: bytes) -> None:
        fields = stat.rpartition(b")")[2].split()
        self.pid = pid
        self.state = fields[0]
        self.parent, self.group, self.session = int(fields[1]), int(fields[2]), int(fields[3])
        self.began = int(fields[19])


def boot_id() -> str:
    """Return what tells this start of the host from any other."""
    with open(_BOOT_ID) as file:
        return file.read().strip()


def process(pid: int) -> Process | None:
    """Return a process that lives (a zombie does not), or None. Raise OSError when a shortage hides whether it does."""
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
    """Return a moment (seconds since the host's start) in the clock ticks of `Process.began`."""
    return int(boottime * TICKS)


def processes() -> list[Process]:
    """Return all processes that live. Raise OSError when they cannot be listed: some of them would be none at all."""
    return [found for name in os.listdir("/proc") if name.isdigit() and (found := process(int(name)))]


def children_of_mine() -> list[int] | None:
    """Return the process ids of our own children, zombies too; None where the kernel does not list them."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return [int(each) for each in file.read().split()]
    except OSError:
        return None


def run_of(pid: int) -> str | None:
    """Return the run that a process says it belongs to (its environment at its start), or None. Raise OSError."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError as error:
        raise_shortage(error)
        return None
    return next((each[len(MARK) :].decode("ascii", "replace") for each in variables if each.startswith(MARK)), None)


def family(leader: int, has_ended: bool, all_of_them: Iterable[Process], adopted: Collection[int]) -> list[Process]:
    """Return the processes of a run: its leader's session and group, the `adopted`, and the descendants of all of them.

    Adopted are those whose parents died, and that setsid(2) may have taken out of the session: they became our children,
    and only their environment tells whose they are (`run_of`).

    The kernel gives the number of a leader that `has_ended` away again, but not while its session or group has processes:
    so whoever has the number then is a stranger, and so are those in that one's session and group.
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
    """Return a process that says it belongs to a run, the oldest of them, or None."""
    found = [each for each in processes() if run_of(each.pid) == run_id]
    return min(found, key=lambda each: each.began, default=None)


def send(target: Process, number: int) -> bool:
    """Signal a process if it is still the one that was seen; its number may be another's by now.

    Return False when we may not: it is another user's. Raise OSError.
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
