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
from enum import StrEnum

from .clock import Clock
from .errors import StartError
from .spawn import spawn

log = logging.getLogger(__name__)


class Cause(StrEnum):
    """Why we ended a child before it ended itself."""

    TIMEOUT = "timeout"
    CANCEL = "cancel"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A child to start: `argv[0]` is the path of its program, `env` all of its environment."""

    argv: list[str]
    env: Mapping[str, str]
    output_path: str
    cwd: str | None = None
    timeout_seconds: float | None = None
    kill_grace_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class End:
    """How a child ended: `exit_code` is negative for a signal, as in the subprocess module."""

    run_id: str
    exit_code: int
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


@dataclass(order=True, slots=True)
class _Step:
    """A step of the kill ladder that is due at `when` (monotonic seconds)."""

    when: float
    pidfd: int
    run_id: str = field(compare=False)
    cause: Cause = field(compare=False)
    signal: signal.Signals = field(compare=False)


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

    def launch(self, run_id: str, spec: ProcessSpec) -> int:
        """Start a child and return its process id. Raise StartError, with the reason in words, when it cannot start.

        A supervisor that was never started as a thread still starts children; nobody hears of their ends then.
        """
        started = self._clock.monotonic()
        pid = _spawn(spec)
        pidfd = _watchable(pid)
        self._children[pidfd] = _Child(run_id, pid, pidfd, started, spec.kill_grace_seconds)
        self._by_run[run_id] = pidfd
        self._epoll.register(pidfd, select.EPOLLIN)
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

    def _round(self) -> None:
        timeout = max(0.0, self._steps[0].when - self._clock.monotonic()) if self._steps else -1
        ready = [pidfd for pidfd, _ in self._epoll.poll(timeout)]
        if self._wake in ready:
            ready.remove(self._wake)
            os.eventfd_read(self._wake)
        self._climb()
        ends = [self._reap(pidfd) for pidfd in ready]
        if ends:
            self._on_ends(ends)

    def _climb(self) -> None:
        while not self._orders.empty():
            heapq.heappush(self._steps, self._orders.get())
        now = self._clock.monotonic()
        while self._steps and self._steps[0].when <= now:
            step = heapq.heappop(self._steps)
            child = self._children.get(step.pidfd)
            if child is None or child.run_id != step.run_id:
                continue  # it ended by itself; the number of its pidfd may serve another by now
            child.cause = child.cause or step.cause
            _signal_group(child.pid, step.signal)
            if step.signal == signal.SIGTERM:
                _signal_group(child.pid, signal.SIGCONT)  # a stopped process would not hear SIGTERM
                kill_at = now + child.kill_grace_seconds
                heapq.heappush(self._steps, _Step(kill_at, step.pidfd, step.run_id, step.cause, signal.SIGKILL))

    def _reap(self, pidfd: int) -> End:
        child = self._children.pop(pidfd)
        self._by_run.pop(child.run_id, None)
        # Unregister first: while a fresh child holds a copy, closing does not take it out of the epoll set.
        self._epoll.unregister(pidfd)
        os.close(pidfd)
        _signal_group(child.pid, signal.SIGKILL)  # leftovers of its group, while its own zombie still holds the number
        _, status, usage = os.wait4(child.pid, 0)
        return End(
            run_id=child.run_id, exit_code=os.waitstatus_to_exitcode(status), cause=child.cause,
            duration_seconds=self._clock.monotonic() - child.started,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
        )  # fmt: skip


def keep_descriptors_private() -> None:
    """Mark what this process was started with, but for 0 to 2, as not for children; its own files are so already."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that lists them is gone by now
            os.set_inheritable(int(name), int(name) <= 2)


def _watchable(pid: int) -> int:
    """Return a pidfd for a child; one that cannot be watched must not run."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        _signal_group(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise StartError(f"its process could not be watched, and was killed at once: {error.strerror}") from error


def _signal_group(pid: int, which: signal.Signals) -> None:
    # Nothing of the group is left, or it has become another user's (setuid) and only its end can be awaited.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, which)


def _spawn(spec: ProcessSpec) -> int:
    try:
        return spawn(spec.argv, spec.env, spec.output_path, spec.cwd)
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
