"""Start child processes, hear of their ends, and end them: the only file that does.

Each child leads a session and process group of its own; its output goes straight into a file that it holds itself. One
thread, the supervisor, waits on the pidfds of all children, keeps their timeouts and climbs the kill ladder (SIGTERM to
the group, `kill_grace`, SIGKILL), so a run that waits for its child costs no thread. That thread alone signals and reaps:
a process id is never signalled after it was given back.
"""

from __future__ import annotations

import heapq
import logging
import os
import queue
import select
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from .clock import Clock
from .errors import StartError
from .spawn import spawn

log = logging.getLogger(__name__)


LONGEST_POLL = 3600.0  # seconds: epoll takes no more than 24 days
LOOK_SECONDS = 0.1  # how often a group that was told to end is looked at, once its leader has
STUMBLE_SECONDS = 0.2
UNKNOWN_STATUS = 255 << 8  # as wait(2) would tell exit code 255


class Cause(StrEnum):
    """Why we ended a child before it ended itself."""

    TIMEOUT = "timeout"
    CANCEL = "cancel"
    SHUTDOWN = "shutdown"
    REPLACE = "replace"  # a newer run of the job takes its place
    DEADLINE = "deadline"  # the time for all attempts is over


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a child runs as; set only by root. `groups` are all of its supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use. `rlimits` are (soft, hard) by their name in the resource module, without RLIMIT_.

    `memory_bytes`, `cpus` and `pids` are for the whole run, and need a control group.
    """

    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    nice: int | None = None
    ionice: tuple[int, int] | None = None  # class and level, as in ioprio_set(2)
    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A child to start: `argv[0]` is the path of its program, `env` all of its environment."""

    argv: list[str]
    env: Mapping[str, str]
    output_path: str
    cwd: str | None = None
    timeout_seconds: float | None = None
    kill_grace_seconds: float = 10.0
    input: bytes | None = None  # what it can read from its standard input; None is /dev/null
    output_limit_bytes: int | None = None  # head and tail of its output are kept; None is no limit
    identity: Identity | None = None
    limits: Limits | None = None
    umask: int | None = None
    keeps_leftovers: bool = False  # what it leaves behind goes on when it has ended


@dataclass(frozen=True, slots=True)
class End:
    """How a child ended: `exit_code` is negative for a signal, as in the subprocess module."""

    run_id: str
    exit_code: int
    ended_at: datetime
    cause: Cause | None
    duration_seconds: float
    cpu_seconds: float


@dataclass(slots=True)
class _Child:
    run_id: str
    pid: int
    pidfd: int
    started: float  # monotonic
    kill_grace_seconds: float
    cause: Cause | None = None
    kill_at: float | None = None  # monotonic, once it was told to end
    has_ended: bool = False  # its leader has; others of its group may still be cleaning up


@dataclass(order=True, slots=True)
class _Step:
    """A step of the kill ladder that is due at `when` (monotonic seconds); without a signal it only looks."""

    when: float
    pidfd: int
    run_id: str = field(compare=False)
    cause: Cause = field(compare=False)
    signal: signal.Signals | None = field(compare=False)


class Supervisor(threading.Thread):
    """Parent of all children; calls `on_ends` from its own thread with those that ended together."""

    def __init__(self, clock: Clock, on_ends: Callable[[list[End]], None]) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._clock = clock
        self._on_ends = on_ends
        self._children: dict[int, _Child] = {}  # by pidfd; added by starters, taken out by this thread
        self._by_run: dict[str, int] = {}
        self._steps: list[_Step] = []
        self._orders: queue.SimpleQueue[_Step] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._closing = False
        self._pause = threading.Event()
        self._groups: set[int] | None = None  # that have living members, once a round has looked

    def launch(self, run_id: str, spec: ProcessSpec) -> int:
        """Start a child and return its process id. Raise StartError, with the reason in words, when it cannot start.

        A supervisor that was never started as a thread still starts children; nobody hears of their ends then.
        """
        started = self._clock.monotonic()
        pid = _spawn(spec)
        pidfd = -1
        try:
            pidfd = os.pidfd_open(pid)
            self._children[pidfd] = _Child(run_id, pid, pidfd, started, spec.kill_grace_seconds)
            self._by_run[run_id] = pidfd
            self._epoll.register(pidfd, select.EPOLLIN)
        except OSError as error:  # no descriptor or memory to be had: what cannot be watched must not run
            self._by_run.pop(run_id, None)
            if self._children.pop(pidfd, None) is not None:
                os.close(pidfd)
            _signal_group(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise StartError(f"its process could not be watched, and was killed at once: {error.strerror}") from error
        if spec.timeout_seconds:
            self._order(_Step(started + spec.timeout_seconds, pidfd, run_id, Cause.TIMEOUT, signal.SIGTERM))
        return pid

    def end(self, run_id: str, cause: Cause) -> bool:
        """Climb the kill ladder for a run, now. False when it has no child (any more)."""
        pidfd = self._by_run.get(run_id)
        if pidfd is None:
            return False
        self._order(_Step(self._clock.monotonic(), pidfd, run_id, cause, signal.SIGTERM))
        return True

    def close(self) -> None:
        """End the thread; children that still run are left alone."""
        self._closing = True
        os.eventfd_write(self._wake, 1)
        if self.is_alive():
            self.join()

    def _order(self, step: _Step) -> None:
        self._orders.put(step)
        os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        """Wait for ends and deadlines until closed."""
        while not self._closing:
            try:
                self._round()
            except Exception:  # this loop must not die: no run would ever end again
                log.exception("the supervisor stumbled and goes on")
                self._pause.wait(STUMBLE_SECONDS)

    def _round(self) -> None:
        wait = max(0.0, self._steps[0].when - self._clock.monotonic()) if self._steps else LONGEST_POLL
        ready = [pidfd for pidfd, _ in self._epoll.poll(min(wait, LONGEST_POLL))]
        if self._wake in ready:
            ready.remove(self._wake)
            os.eventfd_read(self._wake)
        self._groups = None
        ends: list[End] = []
        try:
            for pidfd in ready:
                ends += self._leader_ended(pidfd)
            self._climb(ends)  # after the ends: who has ended by itself was not ended by its timeout
        finally:  # whatever goes wrong with one: an end that was seen is never seen again
            if ends:
                self._on_ends(ends)
        self._forget_old_steps()

    def _climb(self, ends: list[End]) -> None:
        """Take the steps that are due; add the ends that they find."""
        while not self._orders.empty():
            heapq.heappush(self._steps, self._orders.get())
        now = self._clock.monotonic()
        while self._steps and self._steps[0].when <= now:
            step = heapq.heappop(self._steps)
            child = self._children.get(step.pidfd)
            if child is None or child.run_id != step.run_id:
                continue  # it ended by itself; the number of its pidfd may serve another by now
            if child.has_ended:
                ends += self._look(child)
            elif step.signal is not None:
                self._signal(child, step, step.signal, now)

    def _signal(self, child: _Child, step: _Step, which: signal.Signals, now: float) -> None:
        child.cause = child.cause or step.cause
        _signal_group(child.pid, which)
        if which == signal.SIGTERM and child.kill_at is None:
            _signal_group(child.pid, signal.SIGCONT)  # a stopped process would not hear SIGTERM
            child.kill_at = now + child.kill_grace_seconds
            heapq.heappush(self._steps, _Step(child.kill_at, step.pidfd, step.run_id, step.cause, signal.SIGKILL))

    def _leader_ended(self, pidfd: int) -> list[End]:
        """Return the end of a child; nothing yet when others of its group were told to end too, and may clean up first."""
        child = self._children[pidfd]
        # Unregister first: while a fresh child holds a copy, closing does not take it out of the epoll set.
        self._epoll.unregister(pidfd)
        child.has_ended = True
        return self._look(child)

    def _look(self, child: _Child) -> list[End]:
        now = self._clock.monotonic()
        if child.kill_at is not None and now < child.kill_at and self._has_members(child.pid):
            when = min(now + LOOK_SECONDS, child.kill_at)
            heapq.heappush(self._steps, _Step(when, child.pidfd, child.run_id, child.cause or Cause.CANCEL, None))
            return []
        return [self._reap(child)]

    def _has_members(self, group: int) -> bool:
        """Return whether a group lives on; one look at all processes serves a whole round."""
        if self._groups is None:
            self._groups = _living_groups()
        return self._groups is None or group in self._groups

    def _reap(self, child: _Child) -> End:
        del self._children[child.pidfd]
        self._by_run.pop(child.run_id, None)
        os.close(child.pidfd)
        _signal_group(child.pid, signal.SIGKILL)  # leftovers of its group, while its own zombie still holds the number
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except ChildProcessError:  # somebody else has taken its status: the end is all that is known
            status, cpu_seconds = UNKNOWN_STATUS, 0.0
        else:
            cpu_seconds = usage.ru_utime + usage.ru_stime
        return End(
            run_id=child.run_id, exit_code=os.waitstatus_to_exitcode(status), ended_at=self._clock.now(),
            cause=child.cause, duration_seconds=self._clock.monotonic() - child.started, cpu_seconds=cpu_seconds,
        )  # fmt: skip

    def _forget_old_steps(self) -> None:
        """Drop the steps of children that are gone, when they are most of the heap: a timeout may be days away."""
        if len(self._steps) > 2 * len(self._children) + 100:
            self._steps = [step for step in self._steps if step.pidfd in self._children and self._is_of_child(step)]
            heapq.heapify(self._steps)

    def _is_of_child(self, step: _Step) -> bool:
        return self._children[step.pidfd].run_id == step.run_id


def _living_groups() -> set[int] | None:
    """Return the process groups that have living members (proc(5): state, parent, group), or None when it is not known."""
    groups = set()
    try:
        for name in os.listdir("/proc"):
            if name.isdigit():
                with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{name}/stat", "rb") as file:
                    state, _parent, group = file.read().rpartition(b")")[2].split()[:3]
                    if state not in (b"Z", b"X"):
                        groups.add(int(group))
    except OSError:  # no descriptor to be had, say: the grace ends the wait
        return None
    return groups


def keep_descriptors_private() -> None:
    """Mark what this process was started with, but for 0 to 2, as not for children; its own files are so already."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that lists them is gone by now
            os.set_inheritable(int(name), int(name) <= 2)


def _signal_group(pid: int, which: signal.Signals) -> None:
    # Nothing of the group is left, or it has become another user's (setuid) and only its end can be awaited.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, which)


def _spawn(spec: ProcessSpec) -> int:
    try:
        return spawn(spec.argv, spec.env, spec.output_path, spec.cwd, spec.input)
    except (OSError, ValueError) as error:
        raise StartError(_why(spec, error)) from error


def _why(spec: ProcessSpec, error: OSError | ValueError) -> str:
    program = spec.argv[0]
    if spec.cwd is not None and not os.path.isdir(spec.cwd):
        return f"cwd {spec.cwd!r} is not a folder"
    if spec.cwd is not None and not os.access(spec.cwd, os.X_OK):
        return f"cwd {spec.cwd!r} may not be entered by the daemon's user"
    if isinstance(error, PermissionError) and not os.path.exists(program):
        return f"{program!r} may not be reached by the daemon's user"
    if not os.path.exists(program):
        return f"there is no program {program!r}"
    if not os.access(program, os.X_OK):
        return f"{program!r} may not be executed: chmod +x it, or name its interpreter first"
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return f"{program!r} could not be started: {reason}"
