"""A transport that aborts a connection whose peer does not read, and whose reading two components can pause."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

STALL_SECONDS = 30.0  # without a single byte read by the peer
CHECKS = 6  # in that period: a connection is aborted at most a sixth of it later


class MeteredTransport:
    """Wraps a transport, and measures how much of the written data the peer has read. Delegates everything else."""

    def __init__(self, inner: asyncio.Transport) -> None:
        self.inner = inner
        self.is_closing, self.get_extra_info = inner.is_closing, inner.get_extra_info  # used often
        self._written = self._sent = self._quiet_checks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = self._is_held = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def pause_reading(self) -> None:
        """Pause reading for the protocol, whose buffers are full."""
        self._is_paused = True
        self.inner.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading for the protocol, unless it is held."""
        self._is_paused = False
        if not self._is_held:
            self.inner.resume_reading()

    def hold_reading(self) -> None:
        """Pause reading until `release_reading`, while received data waits for a later iteration of the loop."""
        self._is_held = True
        self.inner.pause_reading()

    def release_reading(self) -> None:
        """Resume reading, unless the protocol has paused it."""
        self._is_held = False
        if not self._is_paused:
            self.inner.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write as asyncio.Transport does."""
        self._written += len(data)
        self.inner.write(data)
        if self._timer is None and self.inner.get_write_buffer_size():
            self._quiet_checks, self._sent = 0, self._sent_now()
            self._schedule_check()

    def writelines(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write as asyncio.Transport does, in one piece."""
        self.write(b"".join(parts))

    def stop(self) -> None:
        """Stop measuring: the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _schedule_check(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(STALL_SECONDS / CHECKS, self._check)

    def _sent_now(self) -> int:
        return self._written - self.inner.get_write_buffer_size()

    def _check(self) -> None:
        self._timer = None
        if not self.inner.get_write_buffer_size():
            return
        before, self._sent = self._sent, self._sent_now()
        self._quiet_checks = self._quiet_checks + 1 if self._sent == before else 0
        if self._quiet_checks >= CHECKS:
            self.inner.abort()
        else:
            self._schedule_check()
