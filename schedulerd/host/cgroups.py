"""The part of the control group tree that is ours (cgroups(7), version 2): found, settled in, and let go of.

It is ours when systemd delegates it (`Delegate=yes`; the group then has the extended attribute `user.delegate` or
`trusted.delegate`, see systemd.resource-control(5)), or when the variable `SCHEDULERD_CGROUP` names it. In it are

    daemon/         the daemon and its keepers: a group that hands controllers on has no processes of its own
    runs-0/RUN_ID/  the runs of the first keeper, and so on; see keeper/groups.py

systemd before 254 starts a unit's main process in the unit's own group, which it cannot enter while controllers are handed
on from there to runs that go on. So the unit calls `python3 -m schedulerd.host.cgroups` in ExecStopPost=, which takes them
back; the next daemon hands them on again, with the limits. (From 254 on, `DelegateSubgroup=daemon` does without.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress

VARIABLE = "SCHEDULERD_CGROUP"
LEAF = "daemon"
CONTROLLER_OF = {"memory": "memory", "cpus": "cpu", "pids": "pids"}  # by the limit of a run that it keeps
CONTROLLERS = tuple(CONTROLLER_OF.values())
_ATTRIBUTES = ("user.delegate", "trusted.delegate")


def find() -> str | None:
    """Return the folder of the subtree that is ours, or None."""
    named = os.environ.get(VARIABLE)
    if named:
        return named if is_writable_group(named) else None
    own = _own_group()
    if own is None:
        return None
    return next((path for path in (own, os.path.dirname(own)) if _is_delegated(path) and is_writable_group(path)), None)


def is_writable_group(path: str) -> bool:
    """Return whether groups can be made there."""
    return os.path.isfile(os.path.join(path, "cgroup.procs")) and os.access(path, os.W_OK)


def enter_leaf() -> str | None:
    """Move this process out of the way, into its leaf of the subtree; return the subtree, None when there is none.

    Raise OSError when that cannot be.
    """
    path = find()
    if path is None or _own_group() != os.path.normpath(path):
        return path
    leaf = os.path.join(path, LEAF)
    os.makedirs(leaf, exist_ok=True)
    write(os.path.join(leaf, "cgroup.procs"), "0")
    return path


def delegate_controllers(path: str) -> frozenset[str]:
    """Hand on what controllers there are to the groups below `path`, and return which are; those in use go on."""
    for name in _controllers(path, "cgroup.controllers"):
        with suppress(OSError):  # each for itself: one that is not to be had is no reason against the others
            write(os.path.join(path, "cgroup.subtree_control"), f"+{name}")
    return _controllers(path, "cgroup.subtree_control")


def enforceable_limits() -> frozenset[str]:
    """Return which limits of whole runs can be kept here: those of the controllers that our subtree has."""
    path = find()
    return frozenset() if path is None else _controllers(path, "cgroup.controllers")


def unenforceable(limits: Iterable[str], controllers: Iterable[str]) -> list[str]:
    """Return which of a job's limits are of whole runs, and cannot be kept with these controllers."""
    return sorted(name for name in limits if name in CONTROLLER_OF and CONTROLLER_OF[name] not in controllers)


def withdraw_controllers(path: str) -> None:
    """Take controllers back from the groups below, the lowest first: then a process can enter `path` itself."""
    for folder in (*_groups_of_keepers(path), path):
        for name in CONTROLLERS:
            with suppress(OSError):  # it is not handed on
                write(os.path.join(folder, "cgroup.subtree_control"), f"-{name}")


def read(path: str) -> str:
    """Return what a file of a group says. Raise OSError."""
    with open(path, encoding="ascii") as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Tell a file of a group something. Raise OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _controllers(path: str, name: str) -> frozenset[str]:
    """Return which of ours a file of a group names; none when the group is gone."""
    with suppress(OSError):
        return frozenset(read(os.path.join(path, name)).split()).intersection(CONTROLLERS)
    return frozenset()


def _groups_of_keepers(path: str) -> Iterable[str]:
    return [entry.path for entry in os.scandir(path) if entry.name.startswith("runs-") and entry.is_dir()]


def _own_group() -> str | None:
    """Return the folder of the group that this process is in, or None without version 2."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            own = next((line[3:].rstrip("\n") for line in file if line.startswith("0::")), None)
        mount = _mount_point()
    except OSError:
        return None
    return None if own is None or mount is None else os.path.normpath(f"{mount}/{own}")


def _mount_point() -> str | None:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if after.startswith("cgroup2 "):
                return before.split()[4]
    return None


def _is_delegated(path: str) -> bool:
    for name in _ATTRIBUTES:
        with suppress(OSError):
            if os.getxattr(path, name) == b"1":
                return True
    return False


def main() -> int:
    """Let go of the subtree that this process, or the group above it, is in: for ExecStopPost=."""
    path = find()
    if path is not None:
        withdraw_controllers(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
