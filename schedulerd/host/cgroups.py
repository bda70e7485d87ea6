"""The control group subtree that is delegated to the daemon (cgroups(7), version 2).

A subtree is delegated by systemd (`Delegate=yes`; its group then has the extended attribute `user.delegate` or
`trusted.delegate`, see systemd.resource-control(5)) or named by the variable `SCHEDULERD_CGROUP`. It contains

    daemon/         the daemon and its keepers: a group with enabled controllers must not contain processes
    runs-0/RUN_ID/  the runs of the first keeper, and so on; see process/keeper/run_cgroups.py

systemd before 254 starts the main process of a unit in the unit's own group. It cannot do so while controllers are
enabled there for runs that outlived the daemon. The unit therefore calls `python3 -m schedulerd.host.cgroups` in
ExecStopPost=, which disables them. The next daemon enables them again, and the limits apply again. (systemd 254 and
later could use `DelegateSubgroup=daemon` instead.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress

VARIABLE = "SCHEDULERD_CGROUP"
LEAF = "daemon"
CONTROLLER_OF = {"memory": "memory", "cpus": "cpu", "pids": "pids"}  # by the limit that it enforces
CONTROLLERS = tuple(CONTROLLER_OF.values())
_ATTRIBUTES = ("user.delegate", "trusted.delegate")


def find() -> str | None:
    """Return the folder of the delegated subtree, or None."""
    named = os.environ.get(VARIABLE)
    if named:
        return named if is_writable_group(named) else None
    own = _own_group()
    if own is None:
        return None
    return next((path for path in (own, os.path.dirname(own)) if _is_delegated(path) and is_writable_group(path)), None)


def is_writable_group(path: str) -> bool:
    """Return whether a folder is a control group below which this process can create groups."""
    return os.path.isfile(os.path.join(path, "cgroup.procs")) and os.access(path, os.W_OK)


def enter_leaf() -> str | None:
    """Move this process into the leaf group `daemon` of the subtree. Return the subtree, or None when there is none.

    Raise OSError when the kernel refuses it.
    """
    path = find()
    if path is None or _own_group() != os.path.normpath(path):
        return path
    leaf = os.path.join(path, LEAF)
    os.makedirs(leaf, exist_ok=True)
    write(os.path.join(leaf, "cgroup.procs"), "0")
    return path


def delegate_controllers(path: str) -> frozenset[str]:
    """Enable the available controllers for the groups below `path`, and return those that are enabled.

    The limits of running runs apply again.
    """
    for name in _controllers(path, "cgroup.controllers"):
        with suppress(OSError):  # separately: an unavailable controller does not affect the others
            write(os.path.join(path, "cgroup.subtree_control"), f"+{name}")
    return _controllers(path, "cgroup.subtree_control")


def enforceable_limits() -> frozenset[str]:
    """Return the limits of whole runs that can be enforced here, by the controllers of the subtree."""
    path = find()
    return frozenset() if path is None else _controllers(path, "cgroup.controllers")


def unenforceable(limits: Iterable[str], controllers: Iterable[str]) -> list[str]:
    """Return those of a job's limits that need a control group and cannot be enforced with these controllers."""
    return sorted(name for name in limits if name in CONTROLLER_OF and CONTROLLER_OF[name] not in controllers)


def withdraw_controllers(path: str) -> None:
    """Disable controllers below `path`, lowest groups first: a process can then enter `path` itself."""
    for folder in (*_groups_of_keepers(path), path):
        for name in CONTROLLERS:
            with suppress(OSError):  # it is not enabled
                write(os.path.join(folder, "cgroup.subtree_control"), f"-{name}")


def read(path: str) -> str:
    """Return the content of a control group's file. Raise OSError."""
    with open(path, encoding="ascii") as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Write to a control group's file. Raise OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _controllers(path: str, name: str) -> frozenset[str]:
    """Return those of CONTROLLERS that a group's file lists; none when the group is gone."""
    with suppress(OSError):
        return frozenset(read(os.path.join(path, name)).split()).intersection(CONTROLLERS)
    return frozenset()


def _groups_of_keepers(path: str) -> Iterable[str]:
    return [entry.path for entry in os.scandir(path) if entry.name.startswith("runs-") and entry.is_dir()]


def _own_group() -> str | None:
    """Return the folder of this process's group, or None without version 2."""
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
    """Disable controllers in the subtree of this process or of the group above it: for ExecStopPost=."""
    path = find()
    if path is not None:
        withdraw_controllers(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
