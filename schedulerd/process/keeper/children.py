"""The children of the keeper: their timeouts, the kill ladder over all processes of a run, and their ends.

The ladder: SIGTERM to every process of the run (and SIGCONT, because a stopped process does not handle SIGTERM), the grace
period, then SIGKILL repeatedly until no process is left. The processes of a run are those of its control group
(`run_cgroups.py`) and those that `procfs.family` finds. Leftovers of a run that ended by itself are killed at once, unless
the run keeps them.
"""

from __future__ import annotations

import heapq
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress

from ...core.clock import SystemClock
from ...host.descriptors import format_os_error
from .adoption import AdoptedLeaders
from .child import Child
from .leftovers import format_unkilled, killed_in_group, named
from .members import RunMembers
from .procfs import Process, send
from .run_cgroups import RunCgroups

CHECK_SECONDS = 0.1  # between two checks of a run that is being ended
GIVE_UP_SECONDS = 5.0  # after SIGKILL: a process that lives then is stuck in the kernel
AGAIN_SECONDS = 2.0  # between two SIGKILLs to a process that survived one


class Children:
    """All children; `on_end(child, seconds)` is called when one has ended, with its duration."""

    def __init__(
        self,
        clock: SystemClock,
        epoll: select.epoll,
        groups: RunCgroups,
        on_end: Callable[[Child, float], None],
        on_trouble: Callable[[str], None],
        on_unkilled: Callable[[str, str], None],
    ) -> None:
        """`on_trouble(text)` is for the operator; `on_unkilled(run_id, who)` reports processes that survive SIGKILL."""
        self._clock = clock
        self._groups = groups
        self._on_end = on_end
        self._on_trouble, self._on_unkilled = on_trouble, on_unkilled
        self.by_run: dict[str, Child] = {}
        self._by_pid: dict[int, Child] = {}
        self._steps: list[tuple[float, str, int, str]] = []  # a heap: when, run_id, signal (0: check only), cause
        self._members = RunMembers(groups, self._by_pid)
        self._adopted = AdoptedLeaders(clock, epoll, self._on_leader_ended)
        self._is_hidden = False  # processes cannot be listed, and that was reported

    def add(self, child: Child, deadline: float | None) -> None:
        """Watch a child of ours; at `deadline` (monotonic) it is ended."""
        self.by_run[child.run_id] = self._by_pid[child.pid] = child
        if deadline is not None:
            self._plan(deadline, child, signal.SIGTERM, "timeout")

    def adopt(self, child: Child, deadline: float | None) -> bool:
        """Watch a process that is not a child of ours. False when it has ended; see `AdoptedLeaders.add`."""
        if not self._adopted.add(child):
            return False
        self.add(child, deadline)
        return True

    @property
    def is_polling(self) -> bool:
        """Whether there are adopted leaders without a descriptor."""
        return self._adopted.is_polling

    def end(self, run_id: str, cause: str) -> None:
        """Start the kill ladder of a run."""
        child = self.by_run.get(run_id)
        if child is not None:
            self._plan(self._clock.monotonic(), child, signal.SIGTERM, cause)

    def wait_seconds(self) -> float | None:
        """Return the seconds until the next step is due; None when there is none."""
        due = [self._steps[0][0]] if self._steps else []
        due += [self._adopted.poll_at] if self._adopted.poll_at is not None else []
        return max(0.0, min(due) - self._clock.monotonic()) if due else None

    def _plan(self, when: float, child: Child, number: int, cause: str) -> None:
        heapq.heappush(self._steps, (when, child.run_id, number, cause))

    # Ends

    def collect_ends(self, ready: list[int]) -> None:
        """Note which leaders have ended: our children, those behind the descriptors `ready`, and those that are polled.

        `escalate` processes the ends: a step that fails there is repeated, so no end is lost.
        """
        self._adopted.collect(ready)
        self._reap()
        self._adopted.poll()

    def _on_leader_ended(self, child: Child) -> None:
        child.has_ended = True
        self._plan(self._clock.monotonic(), child, 0, "")

    def _reap(self) -> None:
        """Reap every child that has ended. Kill its process group first, while the zombie still holds the number."""
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
                self._on_leader_ended(child)
                if is_swept:
                    child.leftovers |= killed_in_group(child.pid)

    def _finish_if_gone(self, child: Child) -> None:
        """Report the end of a run whose leader has ended, once no process of it is left; kill and check again otherwise."""
        now = self._clock.monotonic()
        since = child.kill_at if child.kill_at is not None else now
        left = self._members.left_of(child)
        is_forced = child.kill_at is None or now >= child.kill_at
        if child.kill_at is None:
            child.leftovers |= {each.pid: named(each.pid) for each in left if each.pid not in child.leftovers}
        if left and is_forced:
            self._groups.kill(child.run_id)
            refused = [each for each in left if not send(each, signal.SIGKILL)]
            self._report_unkilled(child, left if now >= since + GIVE_UP_SECONDS else [], refused)
        if left and now < since + GIVE_UP_SECONDS:
            if child.kill_at is None:
                child.kill_at = now  # leftovers: killed from now on
            self._plan(now + CHECK_SECONDS if is_forced else min(now + CHECK_SECONDS, child.kill_at), child, 0, "")
            return
        self._finish(child)

    def _finish(self, child: Child) -> None:
        del self.by_run[child.run_id]
        if self._by_pid.get(child.pid) is child:
            del self._by_pid[child.pid]
        self._on_end(child, self._clock.monotonic() - child.started)

    # The kill ladder

    def escalate(self) -> None:
        """Carry out the steps that are due. A step that fails because of a shortage is repeated shortly after."""
        now = self._clock.monotonic()
        if not self._steps or self._steps[0][0] > now:
            return
        self._members.rescan()
        failure: OSError | None = None
        while self._steps and self._steps[0][0] <= now:
            _, run_id, number, cause = heapq.heappop(self._steps)
            child = self.by_run.get(run_id)
            if child is None:
                continue
            try:
                self._step(child, number, cause, now)
            except OSError as error:
                failure = error
                self._repeat_step(child, number, cause, now)
        self._report_failure(failure)
        self._drop_old_steps()

    def _step(self, child: Child, number: int, cause: str, now: float) -> None:
        if child.has_ended:
            self._finish_if_gone(child)
        elif number:
            self._signal(child, number, cause, now)

    def _repeat_step(self, child: Child, number: int, cause: str, now: float) -> None:
        """Plan a step again. The end of a run is reported after GIVE_UP_SECONDS, whatever is left of it."""
        if child.has_ended and child.kill_at is None:
            child.kill_at = now
        if child.has_ended and child.kill_at is not None and now >= child.kill_at + GIVE_UP_SECONDS:
            self._groups.kill(child.run_id)
            self._finish(child)
            return
        self._plan(now + CHECK_SECONDS, child, number, cause)

    def _report_failure(self, error: OSError | None) -> None:
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
        elif not self._adopted.is_alive(child):
            return
        members, refused = self._members.of(child), []
        for member in members:
            is_alone = child.is_adopted or child.is_shot or member.group != child.pid  # not reached by a signal to the group
            if is_alone and not all(send(member, each) for each in numbers):
                refused.append(member)
        if number == signal.SIGKILL:  # repeated until no process is left: some may have been started meanwhile
            self._groups.kill(child.run_id)
            self._report_unkilled(child, members if _is_late(child, now) else [], refused)
            self._plan(now + (AGAIN_SECONDS if child.unkilled else CHECK_SECONDS), child, signal.SIGKILL, cause)
            child.is_shot = True

    def _report_unkilled(self, child: Child, stuck: list[Process], refused: list[Process]) -> None:
        who = format_unkilled(refused, stuck)
        if who is not None and who != child.unkilled:
            child.unkilled = who
            self._on_unkilled(child.run_id, who)

    def _drop_old_steps(self) -> None:
        """Drop the steps of ended children when they are most of the heap: a timeout may be days away."""
        if len(self._steps) > 2 * len(self.by_run) + 100:
            self._steps = [step for step in self._steps if step[1] in self.by_run]
            heapq.heapify(self._steps)


def _is_late(child: Child, now: float) -> bool:
    return child.is_shot and child.kill_at is not None and now >= child.kill_at + GIVE_UP_SECONDS


def _signal_group(pid: int, number: int) -> None:
    # No process of the group is left, or it has become another user's (setuid) and only its end can be awaited.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
