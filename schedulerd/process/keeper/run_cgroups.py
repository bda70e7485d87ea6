"""A control group for each run: it holds all processes of the run, measures what they use, and enforces limits.

Each keeper has a folder of its own for its groups (`host/cgroups.py` describes the layout). Without a delegated subtree,
`available` is False and the methods do nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ...host.cgroups import delegate_controllers, find, is_writable_group, read, unenforceable, write
from ...host.descriptors import raise_shortage

PERIOD = 100_000  # microseconds of cpu.max
_FILES = {"memory": "memory.max", "cpus": "cpu.max", "pids": "pids.max"}


class RunCgroups:
    """The groups of the runs of the keeper called `name`."""

    def __init__(self, name: str) -> None:
        self._subtree = find()
        self._folder = os.path.join(self._subtree or "", f"runs-{name}")
        self._controllers: frozenset[str] = frozenset()
        self._busy: set[str] = set()  # groups that could not be removed yet
        self.available = self._subtree is not None
        if self.available:
            try:
                os.makedirs(self._folder, exist_ok=True)
            except OSError:
                self.available = False

    def enable_controllers(self) -> None:
        """Enable the controllers of the groups. A daemon that has just started must have left the parent group before."""
        if self._subtree is not None and self.available:
            self._controllers = delegate_controllers(self._subtree) and delegate_controllers(self._folder)

    def make(self, run_id: str, limits: Mapping[str, float]) -> str | None:
        """Create the group of a run with its limits; return the file through which a process enters it. Raise OSError."""
        if not self.available:
            return None
        path = self._path(run_id)
        with suppress(FileExistsError):
            os.mkdir(path)
        try:
            self.limit(run_id, limits)
        except OSError:
            self.remove(run_id)
            raise
        return os.path.join(path, "cgroup.procs")

    def limit(self, run_id: str, limits: Mapping[str, float]) -> None:
        """Set the limits of a run that can be enforced. Raise OSError."""
        path = self._path(run_id)
        for name in limits.keys() - unenforceable(limits, self._controllers):
            write(os.path.join(path, _FILES[name]), _setting(name, limits[name]))
        if "memory" in limits and "memory" in self._controllers:
            write(os.path.join(path, "memory.oom.group"), "1")  # a run of which a part was killed is of no use
            with suppress(OSError):  # a kernel without swap accounting
                write(os.path.join(path, "memory.swap.max"), "0")

    def unenforced(self, run_id: str, limits: Mapping[str, float]) -> list[str]:
        """Return which limits of a run are not enforced: there is no controller, or the run has no group."""
        return unenforceable(limits, self._controllers if os.path.isdir(self._path(run_id)) else ())

    def members(self, run_id: str) -> set[int]:
        """Return the processes in the group of a run and in its subgroups. Raise OSError."""
        if not self.available:
            return set()
        found: set[int] = set()
        for folder, _, _ in os.walk(self._path(run_id), onerror=raise_shortage):
            try:
                found.update(map(int, read(os.path.join(folder, "cgroup.procs")).split()))
            except OSError as error:  # the group may be gone
                raise_shortage(error)
        return found

    def is_populated(self, run_id: str) -> bool | None:
        """Return whether there are processes in the group of a run; None when there is no group. Raise OSError."""
        if not self.available:
            return None
        try:
            return "populated 1" in read(os.path.join(self._path(run_id), "cgroup.events"))
        except OSError as error:
            raise_shortage(error)
        return None

    def kill(self, run_id: str) -> None:
        """Kill everything in the group of a run at once (cgroup.kill, since Linux 5.14)."""
        if self.available:
            with suppress(OSError):  # an older kernel: its processes are killed one by one
                write(os.path.join(self._path(run_id), "cgroup.kill"), "1")

    def figures(self, run_id: str) -> dict[str, Any]:
        """Return the `cpu` seconds and `peak` bytes of memory of a run, and how often limits struck (`oom`, `pids`)."""
        if not self.available:
            return {}
        path, found = self._path(run_id), {}
        with suppress(OSError, KeyError):
            found["cpu"] = _pairs(path, "cpu.stat")["usage_usec"] / 1e6
        with suppress(OSError, ValueError):
            found["peak"] = int(read(os.path.join(path, "memory.peak")))
        with suppress(OSError, KeyError):
            found["oom"] = _pairs(path, "memory.events")["oom_kill"]
        with suppress(OSError, KeyError):
            found["pids"] = _pairs(path, "pids.events")["max"]
        return {name: value for name, value in found.items() if value}

    def remove(self, run_id: str) -> None:
        """Remove the group of a run, and retry the groups that could not be removed earlier."""
        if not self.available:
            return
        for each in (run_id, *self._busy):
            if _is_removed(self._path(each)):
                self._busy.discard(each)
            else:
                self._busy.add(each)

    def remove_others(self, known: Mapping[str, Any]) -> None:
        """Remove the groups that an earlier keeper left, except those of known runs."""
        if self.available and is_writable_group(self._folder):
            for name in os.listdir(self._folder):
                if name not in known and os.path.isdir(self._path(name)):
                    self.remove(name)

    def _path(self, run_id: str) -> str:
        return os.path.join(self._folder, run_id)


def _setting(name: str, value: float) -> str:
    return f"{max(1000, int(value * PERIOD))} {PERIOD}" if name == "cpus" else str(int(value))


def _pairs(path: str, name: str) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in read(os.path.join(path, name)).splitlines())}


def _is_removed(path: str) -> bool:
    try:
        for folder, _, _ in os.walk(path, topdown=False, onerror=raise_shortage):
            with suppress(FileNotFoundError):
                os.rmdir(folder)
    except OSError:
        return False
    return True
