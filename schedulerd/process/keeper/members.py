"""The processes of each run: those of its control group, its session and its descendants."""

from __future__ import annotations

import os
from collections.abc import Container

from .child import Child
from .procfs import Process, children_of_mine, family, processes, run_of
from .run_cgroups import RunCgroups


class RunMembers:
    """Finds the processes of runs. One scan of /proc serves a whole round of the kill ladder.

    There may be thousands of processes and hundreds of runs to end.
    """

    def __init__(self, groups: RunCgroups, leaders: Container[int]) -> None:
        """`leaders` are the process ids of the children that this keeper started."""
        self._groups = groups
        self._leaders = leaders
        self._all: list[Process] | None = None  # once it is scanned
        self._orphans: dict[int, str | None] | None = None  # reparented to us: the run that each one names

    def rescan(self) -> None:
        """Discard the scan: the next query makes a new one."""
        self._all = self._orphans = None

    def of(self, child: Child) -> list[Process]:
        """Return the processes of a run. Raise OSError."""
        adopted = {pid for pid, run_id in self._reparented().items() if run_id == child.run_id}
        adopted |= self._groups.members(child.run_id)
        return family(child.pid, child.has_ended, self._processes(), adopted)

    def left_of(self, child: Child) -> list[Process]:
        """Return the processes of a run whose leader has ended that must not stay. Raise OSError."""
        if child.keeps_leftovers and child.cause is None:
            return []
        is_populated = self._groups.is_populated(child.run_id)
        if child.kill_at is None and not self._reparented() and not child.is_adopted and not is_populated:
            return []  # the process group was killed with its leader, and no other process was left
        return [each for each in self.of(child) if each.pid != os.getpid()]

    def _reparented(self) -> dict[int, str | None]:
        """Return our children that we did not start, each with the run that its environment names. Raise OSError."""
        if self._orphans is None:
            mine = children_of_mine()
            if mine is None:
                mine = [each.pid for each in self._processes() if each.parent == os.getpid()]
            self._orphans = {pid: run_of(pid) for pid in mine if pid not in self._leaders}
        return self._orphans

    def _processes(self) -> list[Process]:
        if self._all is None:
            self._all = processes()
        return self._all
