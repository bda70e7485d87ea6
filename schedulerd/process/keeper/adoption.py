"""Leaders that are not our children, because the keeper that started them was killed: detect their ends.

Each is watched through a pidfd (pidfd_open(2)), or polled while there is no descriptor to spare.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress

from ...core.clock import SystemClock
from ...host.descriptors import is_spare
from .child import Child
from .procfs import process

POLL_SECONDS = 1.0  # between two checks of processes without a descriptor
SAME_TICKS = 200  # a start time is noted a moment after the start; no process id is reused that soon


class AdoptedLeaders:
    """The adopted leaders; `on_ended(child)` is called when one has ended."""

    def __init__(self, clock: SystemClock, epoll: select.epoll, on_ended: Callable[[Child], None]) -> None:
        self._clock = clock
        self._epoll = epoll
        self._on_ended = on_ended
        self._by_pidfd: dict[int, Child] = {}
        self._polled: dict[str, Child] = {}
        self.poll_at: float | None = None  # monotonic

    @property
    def is_polling(self) -> bool:
        """Whether there are leaders without a descriptor."""
        return bool(self._polled)

    def add(self, child: Child) -> bool:
        """Watch a leader. False when it has ended; an error of the system is never taken for an end."""
        child.is_adopted = True
        child.pidfd = self._open(child.pid)
        try:
            lives = _lives(child)
        except OSError:
            lives = True
            self._close(child)  # polled until its identity is known
        if not lives:
            self._close(child)
            return False
        if child.pidfd >= 0:
            self._by_pidfd[child.pidfd] = child
        else:
            self._polled[child.run_id] = child
            self.poll_at = self._clock.monotonic() + POLL_SECONDS
        return True

    def collect(self, ready: list[int]) -> None:
        """Report the ends behind the descriptors that are `ready`."""
        for pidfd in ready:
            child = self._by_pidfd.pop(pidfd, None)
            if child is not None:
                self._close(child)
                self._on_ended(child)

    def poll(self) -> None:
        """Check the leaders without a descriptor, when that is due."""
        now = self._clock.monotonic()
        if self.poll_at is None or now < self.poll_at:
            return
        for child in list(self._polled.values()):
            with suppress(OSError):  # a shortage: checked again
                self.is_alive(child)
        self.poll_at = now + POLL_SECONDS if self._polled else None

    def is_alive(self, child: Child) -> bool:
        """Return whether the process of a leader is still that leader; report its end otherwise. Raise OSError."""
        if child.run_id not in self._polled or _lives(child):
            return True
        del self._polled[child.run_id]
        self._on_ended(child)
        return False

    def _open(self, pid: int) -> int:
        """Return a pidfd that is registered with epoll, -1 when there is none to spare."""
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

    def _close(self, child: Child) -> None:
        if child.pidfd >= 0:
            self._epoll.unregister(child.pidfd)
            os.close(child.pidfd)
            child.pidfd = -1


def _lives(child: Child) -> bool:
    """Return whether the process of a leader lives. Raise OSError when a shortage hides it."""
    now = process(child.pid)
    return now is not None and abs(now.began - child.began) <= SAME_TICKS
