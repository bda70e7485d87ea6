"""Bounds on connections that aiohttp lacks: how many there are, and how long one may take to say what it wants.

A `Guard` stands between a transport and aiohttp's own protocol, passes everything on, and aborts a connection that is one
too many or whose request head does not come in time. Idle connections between requests are aiohttp's (keep-alive).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .descriptors import capacity, is_spare

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 200
MOST_OF_ONE_PEER = 64  # of one address on TCP
HEAD_SECONDS = 10.0


class Gate:
    """Counts the connections of one door, and makes a guard for each."""

    def __init__(self, make_protocol: Callable[[], Any]) -> None:
        """`make_protocol` makes aiohttp's protocol for a connection."""
        self._make_protocol = make_protocol
        self._guards: dict[asyncio.BaseTransport, Guard] = {}
        self._of_peer: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._is_short = False  # the last connection was refused for want of descriptors

    def __call__(self) -> Guard:
        """Return the protocol of a new connection (what `loop.create_server` asks for)."""
        return Guard(self, self._make_protocol())

    async def settle(self, seconds: float) -> None:
        """Wait until each connection that came has its answer, but for so many seconds only (some wait for a run)."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(guard.is_fresh or guard.is_busy for guard in self._guards.values()):
                    self._changed.clear()
                    await self._changed.wait()

    def head_came(self, transport: asyncio.BaseTransport | None) -> None:
        """Note that a request's head has come: from here on, its handler decides how long it takes."""
        guard = self._guards.get(transport) if transport is not None else None
        if guard is not None:
            guard.is_busy, guard.is_fresh = True, False
            guard.stop_waiting()

    def answered(self, transport: asyncio.BaseTransport | None) -> None:
        """Note that a request has its answer: what comes now is the next one's head."""
        guard = self._guards.get(transport) if transport is not None else None
        if guard is not None:
            guard.is_busy = False
            self._changed.set()

    def admit(self, guard: Guard, transport: asyncio.BaseTransport) -> bool:
        """Count a connection, or say that it is one too many: also when it takes a descriptor of the reserve."""
        if len(self._guards) >= MOST_CONNECTIONS or self._of_peer[guard.peer] >= MOST_OF_ONE_PEER:
            return False
        if not self._leaves_reserve(transport):
            return False
        self._guards[transport] = guard
        if guard.peer:
            self._of_peer[guard.peer] += 1
        return True

    def _leaves_reserve(self, transport: asyncio.BaseTransport) -> bool:
        leaves = is_spare(transport.get_extra_info("socket").fileno())
        if not leaves and not self._is_short:
            log.error("connections are refused: %s", capacity(())["trouble"] or "too few descriptors were left")
        self._is_short = not leaves
        return leaves

    def forget(self, guard: Guard, transport: asyncio.BaseTransport) -> None:
        """Take a connection off the count."""
        self._changed.set()
        if self._guards.pop(transport, None) is not None and guard.peer:
            self._of_peer[guard.peer] -= 1
            self._of_peer += Counter()  # drops those that are at zero


class Guard(asyncio.Protocol):
    """One connection's bounds, before aiohttp's protocol `inner`."""

    def __init__(self, gate: Gate, inner: Any) -> None:
        self.peer = ""
        self.is_fresh = True  # it has not had its first request
        self.is_busy = False  # with a request: what comes meanwhile is its body, or the next one's head, which may wait
        self._gate = gate
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_in = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let a connection in, or abort it."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - doors are streams
        name = transport.get_extra_info("peername")
        self.peer = name[0] if isinstance(name, tuple) else ""
        self._is_in = self._gate.admit(self, transport)
        if not self._is_in:
            transport.abort()
            return
        self._transport = transport
        self._wait()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what came; the first byte of a head starts its time."""
        if self._is_in:
            if self._timer is None and not self.is_busy:
                self._wait()
            self._inner.data_received(data)

    def stop_waiting(self) -> None:
        """Stop the time: a head has come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, error: Exception | None) -> None:
        """Pass on the end."""
        self.stop_waiting()
        if self._is_in and self._transport is not None:
            self._gate.forget(self, self._transport)
            self._inner.connection_lost(error)

    def eof_received(self) -> bool | None:
        """Pass on that the caller sends no more."""
        return bool(self._inner.eof_received()) if self._is_in else None

    def pause_writing(self) -> None:
        """Pass on that the caller reads slower than it is answered."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the caller has read."""
        self._inner.resume_writing()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._too_slow)

    def _too_slow(self) -> None:
        if self._transport is not None:
            self._transport.abort()
