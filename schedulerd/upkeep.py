"""Checks that the files that a running daemon needs exist at their paths, and creates removed ones again."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Sequence

from .api.listeners import Listeners
from .core.clock import Clock
from .core.errors import SchedulerdError
from .host.locks import PathLock
from .process.output import OutputFolder

log = logging.getLogger(__name__)

CHECK_SECONDS = 10.0  # interval of the checks


class Upkeep:
    """Checks the lock files, the state directory, and the sockets of the API and of the keepers."""

    def __init__(
        self,
        locks: Sequence[PathLock],
        listeners: Listeners,
        restore_keepers: Callable[[], list[str]],
        output: OutputFolder,
        clock: Clock,
    ) -> None:
        """`restore_keepers()` makes the keepers create their files again, and returns their errors, as messages."""
        self._locks, self._listeners, self._restore_keepers = locks, listeners, restore_keepers
        self._output, self._clock = output, clock
        self._check_at = clock.monotonic() + CHECK_SECONDS
        self._checking = threading.Lock()
        self._found: list[str] = []

    @property
    def troubles(self) -> list[str]:
        """Return the current problems, as messages."""
        return [*self._found, *self._output.troubles]

    def is_due(self) -> bool:
        """Return whether the next check is due, true once for each. Cheap; called at each tick."""
        now = self._clock.monotonic()
        if now < self._check_at:
            return False
        self._check_at = now + CHECK_SECONDS
        return True

    def restore(self) -> socket.socket | None:
        """Create removed files again; return the API's socket if it is a new one. A disk that hangs blocks the caller."""
        if not self._checking.acquire(blocking=False):
            return None
        try:
            troubles = [trouble for each in self._locks if (trouble := each.restore()) is not None]
            fresh = self._restore_socket(troubles)
            troubles += self._restore_keepers()
            self._output.check()
        finally:
            self._checking.release()
        for trouble in troubles:
            if trouble not in self._found:
                log.error("%s", trouble)
        self._found = troubles
        return fresh

    def _restore_socket(self, troubles: list[str]) -> socket.socket | None:
        try:
            return self._listeners.restore()
        except (SchedulerdError, OSError) as error:
            troubles.append(f"the API's socket was removed, and cannot be made again: {error}")
            return None
