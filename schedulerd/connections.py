"""Bounds on connections that aiohttp lacks: how many there are, how long and how much one may take to say what it wants.

A `Guard` stands between a transport and aiohttp's own protocol and passes on what is within bounds. It aborts a connection
that is one too many or whose request does not come in time, and refuses a head or a trailer that is too large, with an
answer where that cannot be taken for a part of another one. Idle connections between requests are aiohttp's (keep-alive).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .answers import raw_refusal
from .descriptors import capacity, is_spare
from .framing import Framing, RefusedError

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 200
MOST_UNANSWERED = 128  # requests of one connection
MOST_OF_ONE_PEER = 64  # of one address on TCP
HEAD_SECONDS = 10.0
BODY_SECONDS = 35.0  # with its trailer; a handler that reads it waits for 30 s, and says so
REFUSED_SECONDS = 2.0  # for the caller to read why, before the connection is cut
REFUSED_BYTES = 1 << 20  # that are thrown away meanwhile


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

    def head_came(self, transport: asyncio.BaseTransport | None, *, may_stream: bool = False) -> None:
        """Note that a request's head has come: from here on, its handler decides how long it takes, and streams or not."""
        guard = self._guards.get(transport) if transport is not None else None
        if guard is not None:
            guard.is_busy, guard.is_fresh, guard.is_streaming = True, False, may_stream

    def answered(self, transport: asyncio.BaseTransport | None) -> None:
        """Note that a request has its answer: what comes now is the next one's head."""
        guard = self._guards.get(transport) if transport is not None else None
        if guard is not None:
            guard.is_busy = guard.is_streaming = False
            guard.answers += 1
            guard.watch()
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
        self.is_streaming = False  # the handler may have begun to send its answer
        self.answers = 0  # that aiohttp has from our handlers
        self._gate = gate
        self._inner = inner
        self._framing = Framing()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timed: tuple[int, bool] | None = None  # what the timer is for: after how many heads, a body or a head
        self._is_in = False
        self._thrown_away = 0

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
        self.watch()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what came and is within bounds."""
        if not self._is_in:
            self._throw_away(data)
            return
        heads, was_in_body = self._framing.heads, self._framing.is_in_body
        try:
            ready = self._framing.feed(data)
            if self._framing.heads - self.answers > MOST_UNANSWERED:
                raise RefusedError(400, f"more than {MOST_UNANSWERED} requests wait for their answers")
        except RefusedError as error:
            self._refuse(error, may_answer=not self.is_streaming and heads - self.answers == was_in_body)
            return
        self.watch()
        if ready:
            self._inner.data_received(ready)

    def watch(self) -> None:
        """Start the time of a head or a body that has begun, and stop it when it has come; a head waits for an answer."""
        framing = self._framing
        is_in_head = (framing.is_in_head and not self.is_busy) or not framing.heads
        due = (framing.heads, framing.is_in_body) if framing.is_in_body or is_in_head else None
        if due == self._timed or not self._is_in:
            return
        self._stop_waiting()
        if due is not None:
            self._wait(BODY_SECONDS if framing.is_in_body else HEAD_SECONDS)
        self._timed = due

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timed = None

    def connection_lost(self, error: Exception | None) -> None:
        """Pass on the end."""
        self._stop_waiting()
        if self._transport is not None:
            self._gate.forget(self, self._transport)
        self._leave(error)

    def eof_received(self) -> bool | None:
        """Pass on that the caller sends no more."""
        return bool(self._inner.eof_received()) if self._is_in else None

    def pause_writing(self) -> None:
        """Pass on that the caller reads slower than it is answered."""
        if self._is_in:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the caller has read."""
        if self._is_in:
            self._inner.resume_writing()

    def _refuse(self, error: RefusedError, *, may_answer: bool) -> None:
        """Say why and read no more of what is meant; what comes is thrown away for a moment, or the answer would be lost."""
        assert self._transport is not None  # noqa: S101 - it is in
        self._inner.transport = None  # its end must not close ours
        self._leave(None)
        self._inner, self._framing = asyncio.Protocol(), Framing()  # what they held goes now
        if not may_answer or self._transport.is_closing():
            self._transport.abort()
            return
        self._transport.resume_reading()
        self._transport.write(raw_refusal(error.status, error.reason))
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._stop_waiting()
        self._wait(REFUSED_SECONDS)

    def _throw_away(self, data: bytes) -> None:
        self._thrown_away += len(data)
        if self._thrown_away > REFUSED_BYTES and self._transport is not None:
            self._transport.abort()

    def _leave(self, error: Exception | None) -> None:
        if self._is_in:
            self._is_in = self.is_fresh = self.is_busy = False
            self._inner.connection_lost(error)

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        if self._transport is not None:
            self._transport.abort()
