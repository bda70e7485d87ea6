"""A transport that ends when what is written to it is not taken, whatever wrote it; its reading waits for whom it should."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

STALL_SECONDS = 30.0  # in which not a single byte is taken
LOOKS = 6  # in that time: it is over at most a sixth of it later


class Metered:
    """Stands before a transport, and counts what is taken of what waits to be sent. All else is the transport's."""

    def __init__(self, inner: asyncio.Transport) -> None:
        self.inner = inner
        self.is_closing, self.get_extra_info = inner.is_closing, inner.get_extra_info  # which are asked for often
        self._written = self._taken = self._quiet_looks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._has_enough = self._is_held = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def pause_reading(self) -> None:
        """Read no more for now: who reads has enough."""
        self._has_enough = True
        self.inner.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless it is on hold."""
        self._has_enough = False
        if not self._is_held:
            self.inner.resume_reading()

    def hold(self) -> None:
        """Read no more, whoever wants to, until it is let go: what was read waits for its turn."""
        self._is_held = True
        self.inner.pause_reading()

    def let_go(self) -> None:
        """Read on, unless who reads has enough."""
        self._is_held = False
        if not self._has_enough:
            self.inner.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write as the transport does."""
        self._written += len(data)
        self.inner.write(data)
        if self._timer is None and self.inner.get_write_buffer_size():
            self._quiet_looks, self._taken = 0, self._taken_now()
            self._look_later()

    def writelines(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write as the transport does, in one piece."""
        self.write(b"".join(parts))

    def stop(self) -> None:
        """Look no more: the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(STALL_SECONDS / LOOKS, self._look)

    def _taken_now(self) -> int:
        return self._written - self.inner.get_write_buffer_size()

    def _look(self) -> None:
        self._timer = None
        if not self.inner.get_write_buffer_size():
            return
        before, self._taken = self._taken, self._taken_now()
        self._quiet_looks = self._quiet_looks + 1 if self._taken == before else 0
        if self._quiet_looks >= LOOKS:
            self.inner.abort()
        else:
            self._look_later()
