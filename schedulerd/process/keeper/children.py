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

from ...core.clock import SystemClock
from ...host.descriptors import format_os_error, is_spare
from .leftovers import killed_in_group, named, unkilled
from .procfs import Process, children_of_mine, family, process, processes, run_of, send
from .run_cgroups import RunCgroups

LOOK_SECONDS = 0.1  # how often a tree that was told to end is looked at
POLL_SECONDS = 1.0  # between two looks at processes without a descriptor
SAME_TICKS = 200  # a start is noted a moment after it; no number is used again that soon
GIVE_UP_SECONDS = 5.0  # after SIGKILL: what lives then is stuck in the kernel
AGAIN_SECONDS = 2.0  # between two SIGKILLs to what one could not end
MOST_LEFTOVERS = 20  # of which the names are told
UNKNOWN_STATUS = 255 << 8


class Child:
    """A run with its leader: our own child, or (`is_adopted`) what an earlier keeper that was killed has left."""

    __slots__ = (
        "began", "cause", "grace", "has_ended", "is_adopted", "is_shot", "keeps_leftovers", "kill_at", "leftovers", "pid",
        "pidfd", "run_id", "started", "status", "unkilled", "usage",
    )  # fmt: skip

    def __init__(self, run_id: str, pid: int, started: float, grace: float, keeps_leftovers: bool) -> None:
        self.run_id, self.pid, self.started, self.grace = run_id, pid, started, grace
        self.keeps_leftovers = keeps_leftovers
        self.began = 0
        self.is_adopted = False
        self.pidfd = -1  # of an adopted one, when there was a descriptor to spare
        self.cause: str | None = None
        self.kill_at: float | None = None  # monotonic, once it was told to end
        self.has_ended = False  # its leader has; others of its tree may still be cleaning up
        self.status = UNKNOWN_STATUS
        self.usage: Any = None
        self.leftovers: dict[int, str] = {}  # by process id: who outlived the leader, and was killed
        self.is_shot = False  # its tree was sent a SIGKILL
        self.unkilled: str | None = None  # who of it lived on after that, and why


class Children:
    """All children; `on_end(child, seconds)` is called when one is over, with how long it took."""

    def __init__(
        self,
        clock: SystemClock,
        epoll: select.epoll,
        groups: RunCgroups,
        on_end: Callable[[Child, float], None],
        on_trouble: Callable[[str], None],
        on_unkilled: Callable[[str, str], None],
    ) -> None:
        """`on_trouble(text)` is for the operator, `on_unkilled(run_id, who)` says that what was killed lives on."""
        self._clock = clock
        self._epoll = epoll
        self._groups = groups
        self._on_end = on_end
        self._on_trouble, self._on_unkilled = on_trouble, on_unkilled
        self.by_run: dict[str, Child] = {}
        self._by_pid: dict[int, Child] = {}
        self._by_pidfd: dict[int, Child] = {}
        self._polled: dict[str, Child] = {}  # adopted ones for which there was no descriptor to spare
        self._poll_at: float | None = None
        self._steps: list[tuple[float, str, int, str]] = []  # when, run_id, signal (0 only looks), cause
        self._seen: list[Process] | None = None  # all processes, once a round has looked
        # Children of ours that we did not start, and whose they say they are, once a round has looked.
        self._orphans: dict[int, str | None] | None = None
        self._is_hidden = False  # processes cannot be listed, and that was told

    def add(self, child: Child, deadline: float | None) -> None:
        """Watch a child of ours; at `deadline` (monotonic) it is told to end."""
        self.by_run[child.run_id] = self._by_pid[child.pid] = child
        if deadline is not None:
            self._plan(deadline, child, signal.SIGTERM, "timeout")

    def adopt(self, child: Child, deadline: float | None) -> bool:
        """Watch what is no child of ours. False when it is gone: the kernel's word says so, and no shortage does."""
        child.is_adopted = True
        child.pidfd = self._hold(child.pid)
        try:
            lives = _lives(child)
        except OSError:
            lives = True
            self._let_go(child)  # it is polled until it is known who it is
        if not lives:
            self._let_go(child)
            return False
        if child.pidfd >= 0:
            self._by_pidfd[child.pidfd] = child
        else:
            self._polled[child.run_id] = child
            self._poll_at = self._clock.monotonic() + POLL_SECONDS
        self.add(child, deadline)
        return True

    def _hold(self, pid: int) -> int:
        """Return a descriptor that tells of the end of a process; -1 when there is none to spare."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return -1
        try:
            if is_spare(pidfd):
                self._epoll.register(pidfd, select.EPOLLIN)
                return pidfd
        except OSError:  # fs.epoll.max_user_watches
            pass
        os.close(pidfd)
        return -1

    def _let_go(self, child: Child) -> None:
        if child.pidfd >= 0:
            self._epoll.unregister(child.pidfd)
            os.close(child.pidfd)
            child.pidfd = -1

    @property
    def is_polling(self) -> bool:
        """Whether there are adopted ones without a descriptor."""
        return bool(self._polled)

    def end(self, run_id: str, cause: str) -> None:
        """Climb the kill ladder for a run, from now on."""
        child = self.by_run.get(run_id)
        if child is not None:
            self._plan(self._clock.monotonic(), child, signal.SIGTERM, cause)

    def wait_seconds(self) -> float | None:
        """Return after how many seconds the next step is due; None when there is none."""
        due = [self._steps[0][0]] if self._steps else []
        due += [self._poll_at] if self._poll_at is not None else []
        return max(0.0, min(due) - self._clock.monotonic()) if due else None

    def _plan(self, when: float, child: Child, number: int, cause: str) -> None:
        heapq.heappush(self._steps, (when, child.run_id, number, cause))

    # Ends

    def hear(self, pidfds: list[int]) -> None:
        """Note the ends that there are: of children of ours, of those behind `pidfds`, and of those that are polled.

        `climb` deals with them: what fails there is done again, and no end is lost.
        """
        for pidfd in pidfds:
            child = self._by_pidfd.pop(pidfd, None)
            if child is not None:
                self._let_go(child)
                self._has_ended(child)
        self._reap()
        self._poll()

    def _has_ended(self, child: Child) -> None:
        child.has_ended = True
        self._plan(self._clock.monotonic(), child, 0, "")

    def _reap(self) -> None:
        """Take the status of every child that has ended, and kill what is left of its group while it holds the number."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            child = self._by_pid.pop(ended.si_pid, None)
            is_swept = child is not None and not child.keeps_leftovers and child.kill_at is None
            if is_swept:
                _signal_group(ended.si_pid, signal.SIGKILL)
            _, status, usage = os.wait4(ended.si_pid, 0)
            if child is not None:
                child.status, child.usage = status, usage
                self._has_ended(child)
                if is_swept:
                    child.leftovers |= killed_in_group(child.pid)

    def _poll(self) -> None:
        """Look whether those without a descriptor still live."""
        now = self._clock.monotonic()
        if self._poll_at is None or now < self._poll_at:
            return
        for child in list(self._polled.values()):
            with suppress(OSError):  # a shortage: looked at again
                self._is_still(child)
        self._poll_at = now + POLL_SECONDS if self._polled else None

    def _is_still(self, child: Child) -> bool:
        """Return whether the process of a child is still its own, and note its end when that is not so. Raise OSError."""
        if child.run_id not in self._polled or _lives(child):
            return True
        del self._polled[child.run_id]
        self._has_ended(child)
        return False

    def _look_around(self) -> None:
        """Forget what was seen of other processes: it is looked at again when it is needed.

        One look serves a whole round: there may be thousands of processes, and hundreds of children to end.
        """
        self._seen = self._orphans = None

    def _adoptees(self) -> dict[int, str | None]:
        """Return which children we have that others of a run left to us, and whose they say they are. Raise OSError."""
        if self._orphans is None:
            mine = children_of_mine()
            if mine is None:
                mine = [each.pid for each in self._all() if each.parent == os.getpid()]
            self._orphans = {pid: run_of(pid) for pid in mine if pid not in self._by_pid}
        return self._orphans

    def _settle(self, child: Child) -> None:
        """Report a child whose leader has ended, when nothing of it is left that must not be; else look again soon."""
        now = self._clock.monotonic()
        since = child.kill_at if child.kill_at is not None else now
        left = self._left(child)
        is_forced = child.kill_at is None or now >= child.kill_at
        if child.kill_at is None:
            child.leftovers |= {each.pid: named(each.pid) for each in left if each.pid not in child.leftovers}
        if left and is_forced:
            self._groups.kill(child.run_id)
            refused = [each for each in left if not send(each, signal.SIGKILL)]
            self._tell_unkilled(child, left if now >= since + GIVE_UP_SECONDS else [], refused)
        if left and now < since + GIVE_UP_SECONDS:
            if child.kill_at is None:
                child.kill_at = now  # leftovers: killed from now on
            self._plan(now + LOOK_SECONDS if is_forced else min(now + LOOK_SECONDS, child.kill_at), child, 0, "")
            return
        self._finish(child)

    def _finish(self, child: Child) -> None:
        del self.by_run[child.run_id]
        if self._by_pid.get(child.pid) is child:
            del self._by_pid[child.pid]
        self._on_end(child, self._clock.monotonic() - child.started)

    def _left(self, child: Child) -> list[Process]:
        if child.keeps_leftovers and child.cause is None:
            return []
        is_populated = self._groups.is_populated(child.run_id)
        if child.kill_at is None and not self._adoptees() and not child.is_adopted and not is_populated:
            return []  # the process group was killed with its leader, and nothing else was left behind
        return [each for each in self._members(child) if each.pid != os.getpid()]

    def _members(self, child: Child) -> list[Process]:
        adopted = {pid for pid, run_id in self._adoptees().items() if run_id == child.run_id}
        adopted |= self._groups.members(child.run_id)
        return family(child.pid, child.has_ended, self._all(), adopted)

    def _all(self) -> list[Process]:
        if self._seen is None:
            self._seen = processes()
        return self._seen

    # The ladder

    def climb(self) -> None:
        """Take the steps that are due. What a shortage lets fail is tried again in a moment."""
        now = self._clock.monotonic()
        if not self._steps or self._steps[0][0] > now:
            return
        self._look_around()
        hidden: OSError | None = None
        while self._steps and self._steps[0][0] <= now:
            _, run_id, number, cause = heapq.heappop(self._steps)
            child = self.by_run.get(run_id)
            if child is None:
                continue
            try:
                self._step(child, number, cause, now)
            except OSError as error:
                hidden = error
                self._step_later(child, number, cause, now)
        self._tell_hidden(hidden)
        self._forget_old_steps()

    def _step(self, child: Child, number: int, cause: str, now: float) -> None:
        if child.has_ended:
            self._settle(child)
        elif number:
            self._signal(child, number, cause, now)

    def _step_later(self, child: Child, number: int, cause: str, now: float) -> None:
        """Plan a step again; but an end is reported in the end, whatever may be left of the run."""
        if child.has_ended and child.kill_at is None:
            child.kill_at = now
        if child.has_ended and child.kill_at is not None and now >= child.kill_at + GIVE_UP_SECONDS:
            self._groups.kill(child.run_id)
            self._finish(child)
            return
        self._plan(now + LOOK_SECONDS, child, number, cause)

    def _tell_hidden(self, error: OSError | None) -> None:
        if error is not None and not self._is_hidden:
            self._on_trouble(f"processes cannot be listed or signalled: {format_os_error(error)}")
        self._is_hidden = error is not None

    def _signal(self, child: Child, number: int, cause: str, now: float) -> None:
        child.cause = child.cause or cause
        if number == signal.SIGTERM and child.kill_at is None:  # planned before anything can fail
            child.kill_at = now + child.grace
            self._plan(child.kill_at, child, signal.SIGKILL, cause)
        numbers = (signal.SIGTERM, signal.SIGCONT) if number == signal.SIGTERM else (number,)
        if not child.is_adopted:
            for each in numbers:
                _signal_group(child.pid, each)
        elif not self._is_still(child):
            return
        members, refused = self._members(child), []
        for member in members:
            is_alone = child.is_adopted or child.is_shot or member.group != child.pid  # not reached by a signal to the group
            if is_alone and not all(send(member, each) for each in numbers):
                refused.append(member)
        if number == signal.SIGKILL:  # again, until it is gone: it may have started others meanwhile
            self._groups.kill(child.run_id)
            self._tell_unkilled(child, members if self._is_late(child, now) else [], refused)
            self._plan(now + (AGAIN_SECONDS if child.unkilled else LOOK_SECONDS), child, signal.SIGKILL, cause)
            child.is_shot = True

    def _is_late(self, child: Child, now: float) -> bool:
        return child.is_shot and child.kill_at is not None and now >= child.kill_at + GIVE_UP_SECONDS

    def _tell_unkilled(self, child: Child, stuck: list[Process], refused: list[Process]) -> None:
        who = unkilled(refused, stuck)
        if who is not None and who != child.unkilled:
            child.unkilled = who
            self._on_unkilled(child.run_id, who)

    def _forget_old_steps(self) -> None:
        """Drop the steps of children that are gone, when they are most of the heap: a timeout may be days away."""
        if len(self._steps) > 2 * len(self.by_run) + 100:
            self._steps = [step for step in self._steps if step[1] in self.by_run]
            heapq.heapify(self._steps)


def _lives(child: Child) -> bool:
    """Return whether the process of an adopted child lives. Raise OSError when a shortage hides it."""
    now = process(child.pid)
    return now is not None and abs(now.began - child.began) <= SAME_TICKS


def _signal_group(pid: int, number: int) -> None:
    # Nothing of the group is left, or it has become another user's (setuid) and only its end can be awaited.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def end_values(child: Child, seconds: float, at: float) -> dict[str, Any]:
    """Return the end of a child as the journal and the daemon are told it."""
    values: dict[str, Any] = {"cause": child.cause, "seconds": seconds, "at": at}
    if child.leftovers:
        values["leftovers"] = list(child.leftovers.values())[:MOST_LEFTOVERS]
    if child.unkilled is not None:
        values["unkilled"] = child.unkilled
    if child.is_adopted:
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
