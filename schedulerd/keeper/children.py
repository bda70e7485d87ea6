"""The children of the keeper: their timeouts, the kill ladder over the whole tree of each, and their ends.

The ladder: SIGTERM to every process of the run (and SIGCONT, since a stopped one would not hear it), `grace`, then SIGKILL
again and again until nothing of it is left. Who belongs to a run: all that is in its control group (groups.py), and what
family.py finds. Leftovers of a run that ended by itself
are killed at once, unless it keeps them.
"""

from __future__ import annotations

import heapq
import os
import select
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ..clock import SystemClock
from .family import Process, children_of_mine, family, process, processes, run_of, send
from .groups import Groups

LOOK_SECONDS = 0.1  # how often a tree that was told to end is looked at
SAME_TICKS = 200  # a start is noted a moment after it; no number is used again that soon
GIVE_UP_SECONDS = 5.0  # after SIGKILL: what lives then is stuck in the kernel
UNKNOWN_STATUS = 255 << 8


class Child:
    """A run with its leader: our own child, or (`pidfd` is set) what an earlier keeper that was killed has left."""

    __slots__ = (
        "began", "cause", "grace", "has_ended", "keeps_leftovers", "kill_at", "pid", "pidfd", "run_id", "started", "status",
        "usage",
    )  # fmt: skip

    def __init__(self, run_id: str, pid: int, started: float, grace: float, keeps_leftovers: bool) -> None:
        self.run_id, self.pid, self.started, self.grace = run_id, pid, started, grace
        self.keeps_leftovers = keeps_leftovers
        self.began = 0
        self.pidfd = -1
        self.cause: str | None = None
        self.kill_at: float | None = None  # monotonic, once it was told to end
        self.has_ended = False  # its leader has; others of its tree may still be cleaning up
        self.status = UNKNOWN_STATUS
        self.usage: Any = None


class Children:
    """All children; `on_end(child, seconds)` is called when one is over, with how long it took."""

    def __init__(
        self, clock: SystemClock, epoll: select.epoll, groups: Groups, on_end: Callable[[Child, float], None]
    ) -> None:
        self._clock = clock
        self._epoll = epoll
        self._groups = groups
        self._on_end = on_end
        self.by_run: dict[str, Child] = {}
        self._by_pid: dict[int, Child] = {}
        self._by_pidfd: dict[int, Child] = {}
        self._steps: list[tuple[float, str, int, str]] = []  # when, run_id, signal (0 only looks), cause
        self._seen: list[Process] | None = None  # all processes, once a round has looked
        self._orphans: dict[int, str | None] = {}  # children of ours that we did not start, and whose they say they are

    def add(self, child: Child, deadline: float | None) -> None:
        """Watch a child of ours; at `deadline` (monotonic) it is told to end."""
        self.by_run[child.run_id] = self._by_pid[child.pid] = child
        if deadline is not None:
            self._plan(deadline, child, signal.SIGTERM, "timeout")

    def adopt(self, child: Child, deadline: float | None) -> bool:
        """Watch what is no child of ours. False when it is gone."""
        try:
            child.pidfd = os.pidfd_open(child.pid)
        except OSError:
            return False
        now = process(child.pid)
        if now is None or abs(now.began - child.began) > SAME_TICKS:
            os.close(child.pidfd)
            return False
        self._by_pidfd[child.pidfd] = child
        self._epoll.register(child.pidfd, select.EPOLLIN)
        self.add(child, deadline)
        return True

    def end(self, run_id: str, cause: str) -> None:
        """Climb the kill ladder for a run, from now on."""
        child = self.by_run.get(run_id)
        if child is not None:
            self._plan(self._clock.monotonic(), child, signal.SIGTERM, cause)

    def wait_seconds(self) -> float | None:
        """Return after how many seconds the next step is due; None when there is none."""
        return max(0.0, self._steps[0][0] - self._clock.monotonic()) if self._steps else None

    def _plan(self, when: float, child: Child, number: int, cause: str) -> None:
        heapq.heappush(self._steps, (when, child.run_id, number, cause))

    # Ends

    def hear(self, pidfds: list[int]) -> None:
        """Deal with the ends that there are: of children of ours, and of those behind `pidfds`."""
        ended = [child for pidfd in pidfds if (child := self._by_pidfd.get(pidfd)) is not None]
        for child in ended:
            self._epoll.unregister(child.pidfd)
            os.close(self._by_pidfd.pop(child.pidfd).pidfd)
        reaped = self._reap()
        if ended or reaped:
            self._look_around()
        for child in ended + reaped:
            child.has_ended = True
            self._settle(child)

    def _reap(self) -> list[Child]:
        """Take the status of every child that has ended, and kill what is left of its group while it holds the number."""
        found: list[Child] = []
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return found
            if ended is None:
                return found
            child = self._by_pid.pop(ended.si_pid, None)
            if child is not None and not child.keeps_leftovers and child.kill_at is None:
                _signal_group(child.pid, signal.SIGKILL)
            _, status, usage = os.wait4(ended.si_pid, 0)
            self._orphans.pop(ended.si_pid, None)
            if child is not None:
                child.status, child.usage = status, usage
                found.append(child)

    def _look_around(self) -> None:
        """Forget what was seen of other processes, and look which children we have that others of a run left to us.

        One look serves a whole round: there may be thousands of processes, and hundreds of children to end.
        """
        self._seen = None
        mine = children_of_mine()
        if mine is None:
            mine = [each.pid for each in self._all() if each.parent == os.getpid()]
        self._orphans = {pid: run_of(pid) for pid in mine if pid not in self._by_pid}

    def _settle(self, child: Child) -> None:
        """Report a child whose leader has ended, when nothing of it is left that must not be; else look again soon."""
        now = self._clock.monotonic()
        left = self._left(child)
        is_forced = child.kill_at is None or now >= child.kill_at
        if left and is_forced:
            self._groups.kill(child.run_id)
            for each in left:
                send(each, signal.SIGKILL)
        since = child.kill_at if child.kill_at is not None else now
        if left and now < since + GIVE_UP_SECONDS:
            if child.kill_at is None:
                child.kill_at = now  # leftovers: killed from now on
            self._plan(now + LOOK_SECONDS if is_forced else min(now + LOOK_SECONDS, child.kill_at), child, 0, "")
            return
        del self.by_run[child.run_id]
        if self._by_pid.get(child.pid) is child:
            del self._by_pid[child.pid]
        self._on_end(child, now - child.started)

    def _left(self, child: Child) -> list[Process]:
        if child.keeps_leftovers and child.cause is None:
            return []
        is_populated = self._groups.is_populated(child.run_id)
        if child.kill_at is None and not self._orphans and child.pidfd < 0 and not is_populated:
            return []  # the process group was killed with its leader, and nothing else was left behind
        return [each for each in self._members(child) if each.pid != os.getpid()]

    def _members(self, child: Child) -> list[Process]:
        adopted = {pid for pid, run_id in self._orphans.items() if run_id == child.run_id}
        adopted |= self._groups.members(child.run_id)
        return family(child.pid, child.has_ended, self._all(), adopted)

    def _all(self) -> list[Process]:
        if self._seen is None:
            self._seen = processes()
        return self._seen

    # The ladder

    def climb(self) -> None:
        """Take the steps that are due."""
        now = self._clock.monotonic()
        if self._steps and self._steps[0][0] <= now:
            self._look_around()
        while self._steps and self._steps[0][0] <= now:
            _, run_id, number, cause = heapq.heappop(self._steps)
            child = self.by_run.get(run_id)
            if child is None:
                continue
            if child.has_ended:
                self._settle(child)
            elif number:
                self._signal(child, number, cause, now)
        self._forget_old_steps()

    def _signal(self, child: Child, number: int, cause: str, now: float) -> None:
        child.cause = child.cause or cause
        if child.pidfd < 0:
            _signal_group(child.pid, number)
        for each in self._members(child):
            if child.pidfd >= 0 or each.group != child.pid:
                send(each, number)
        if number == signal.SIGTERM:
            if child.kill_at is None:
                self._signal(child, signal.SIGCONT, cause, now)
                child.kill_at = now + child.grace
                self._plan(child.kill_at, child, signal.SIGKILL, cause)
        elif number == signal.SIGKILL:  # again, until it is gone: it may have started others meanwhile
            self._groups.kill(child.run_id)
            self._plan(now + LOOK_SECONDS, child, signal.SIGKILL, cause)

    def _forget_old_steps(self) -> None:
        """Drop the steps of children that are gone, when they are most of the heap: a timeout may be days away."""
        if len(self._steps) > 2 * len(self.by_run) + 100:
            self._steps = [step for step in self._steps if step[1] in self.by_run]
            heapq.heapify(self._steps)


def _signal_group(pid: int, number: int) -> None:
    # Nothing of the group is left, or it has become another user's (setuid) and only its end can be awaited.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def end_values(child: Child, seconds: float, at: float) -> dict[str, Any]:
    """Return the end of a child as the journal and the daemon are told it."""
    values: dict[str, Any] = {"cause": child.cause, "seconds": seconds, "at": at}
    if child.pidfd >= 0:
        values["lost"] = "its keeper was killed (or the machine ran out of memory): it ran on, but how it ended was not seen"
        return values
    values["code"] = os.waitstatus_to_exitcode(child.status)
    if child.usage is not None:
        values["cpu"] = child.usage.ru_utime + child.usage.ru_stime
        values["peak"] = child.usage.ru_maxrss * 1024
    return values


def lost(known: Mapping[str, Any], is_same_boot: bool, at: float) -> dict[str, Any]:
    """Return the end of a run of which an earlier keeper knew, and of which nothing is left."""
    if not is_same_boot:
        why = "the host was started anew while it ran"
    elif "start" in known:
        why = "its keeper was killed, and how it ended was not seen"
    else:
        why = "its keeper was killed while it was started, and nothing of it was found"
    return {"cause": None, "seconds": None, "at": at, "lost": why}
