"""Enforces the limits of one connection: the time and the size of its requests, and one request per iteration of the loop.

A `Guard` is placed between a transport and aiohttp's protocol, and passes on data within the limits. It aborts a connection
that is not admitted or whose request does not arrive in time. It refuses a head or a trailer that is too large. It sends an
error response where that cannot be mistaken for a part of another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..responses import raw_error
from .admission import Caller, Rank
from .framing import Framing, RefusedError
from .limits import ConnectionLimits
from .transport import MeteredTransport

MOST_UNANSWERED = 128  # requests of one connection
MOST_AHEAD = 128 * 1024  # bytes of requests that wait for an earlier one of their connection
HEAD_SECONDS = 10.0
BODY_SECONDS = 35.0  # with its trailer; a handler that reads a body waits for 30 s, and then responds
REFUSED_SECONDS = 2.0  # for the caller to read an error response before the connection is aborted
REFUSED_BYTES = 1 << 20  # discarded in that time, and of bodies that arrive after their response


def guarded(limits: ConnectionLimits, make_protocol: Callable[[], Any]) -> Callable[[], Guard]:
    """Return the protocol factory for `loop.create_server`; `make_protocol` creates aiohttp's protocol of a connection."""
    return lambda: Guard(limits, make_protocol)


class Guard(asyncio.Protocol):
    """The protocol of one connection, in front of aiohttp's."""

    def __init__(self, limits: ConnectionLimits, make_protocol: Callable[[], Any]) -> None:
        self.caller = Caller("")
        self.is_fresh = True  # see LimitedConnection
        self.is_busy = False
        self.is_streaming = False
        self.is_proxied = False
        self.answers = 0
        self._limits = limits
        self._make_protocol = make_protocol
        self._inner: Any = None
        self._framing = Framing()
        self._held = b""  # received after the request that is passed on in this iteration of the loop
        self._is_paused = False  # the peer reads more slowly than responses are written
        self._transport: MeteredTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timed: tuple[int, bool] | None = None  # state of the timer: the number of heads, and whether a body is due
        self._is_in = False  # admitted, and neither refused nor ended
        self._discarded = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection, or abort it."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - listeners are stream sockets
        metered = MeteredTransport(transport)
        self._is_in = self._limits.admit(self, metered)
        if not self._is_in:
            transport.abort()
            return
        self._transport = metered
        self.watch()

    def data_received(self, data: bytes) -> None:
        """Pass on data within the limits."""
        if not self._is_in:
            self._discard(data)
        elif self._held:
            self._held += data
        elif self.caller.rank is Rank.STRANGER and not self._limits.loop_share.acquire(is_first=not self._framing.heads):
            self._held = data
            self._continue_later()
            self._note_idle()
        else:
            self._accept(data)

    def _accept(self, data: bytes) -> None:
        heads, was_in_body = self._framing.heads, self._framing.is_in_body
        if was_in_body and heads == self.answers:  # its response was sent: no handler will read the rest of the body
            self._discard(data)
        try:
            ready, self._held = self._framing.feed(data)
            if len(self._held) > MOST_AHEAD:
                raise RefusedError(400, f"more than {MOST_AHEAD} bytes of requests wait for an earlier one")
            if self._framing.heads - self.answers > MOST_UNANSWERED:
                raise RefusedError(400, f"more than {MOST_UNANSWERED} requests wait for their responses")
        except RefusedError as error:
            self._refuse(error, may_answer=not self.is_streaming and heads - self.answers == was_in_body)
            return
        self.watch()
        if self._held:  # other connections are served first
            self._continue_later()
        if ready:
            self._pass_on(ready)

    def _pass_on(self, ready: bytes) -> None:
        if self._inner is None:  # a silent connection needs no protocol
            self._inner = self._make_protocol()
            self._inner.connection_made(self._transport)
            if self._is_paused:
                self._inner.pause_writing()
        self._inner.data_received(ready)

    def _continue_later(self) -> None:
        """Continue with the held data in a later iteration of the loop. Reading is paused until then."""
        if self._transport is not None:
            self._transport.hold_reading()
        if self.caller.rank is Rank.STRANGER:
            self._limits.loop_share.queue(self._continue, is_first=not self._framing.heads)
        else:
            asyncio.get_running_loop().call_soon(self._continue)

    def _continue(self) -> None:
        held, self._held = self._held, b""
        if self._transport is not None:
            self._transport.release_reading()
        if self._is_in and self._transport is not None and not self._transport.is_closing():
            self._accept(held)

    def watch(self) -> None:
        """Start the timeout of a head or a body that has begun; stop it at the end. The next head waits for the response."""
        self._note_idle()
        framing, is_in_body = self._framing, self._framing.is_in_body
        is_in_head = not framing.heads or (not self.is_busy and framing.is_in_head)
        due = (framing.heads, is_in_body) if is_in_body or is_in_head else None
        if due == self._timed or not self._is_in:
            return
        self._stop_timer()
        if due is not None:
            self._start_timer(BODY_SECONDS if is_in_body else HEAD_SECONDS)
        self._timed = due

    def _note_idle(self) -> None:
        if self.caller.rank is Rank.STRANGER:  # only the first request counts: it may authenticate the caller
            is_asking = not self.answers and bool(self._framing.heads or self._held)
        else:
            is_asking = self._framing.heads > self.answers
        self.caller.is_idle = self._is_paused or not is_asking

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timed = None

    def connection_lost(self, error: Exception | None) -> None:
        """Pass on the end of the connection."""
        self._stop_timer()
        if self._transport is not None:
            self._transport.stop()
            self._limits.forget(self, self._transport)
        self._end(error)

    @property
    def is_silent(self) -> bool:
        """Return whether no data was passed on to aiohttp. Then aiohttp does not know the connection."""
        return self._inner is None

    def leave(self) -> None:
        """Abort the connection at once."""
        if self._transport is not None:
            self._limits.forget(self, self._transport)
            self._transport.abort()

    def eof_received(self) -> bool | None:
        """Pass on that the peer has closed its side of the connection."""
        return bool(self._inner.eof_received()) if self._is_in and self._inner is not None else None

    def pause_writing(self) -> None:
        """Pass on that the peer reads more slowly than responses are written."""
        self._is_paused = True
        self._note_idle()
        if self._is_in and self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the peer has read the written data."""
        self._is_paused = False
        self._note_idle()
        if self._is_in and self._inner is not None:
            self._inner.resume_writing()

    def _refuse(self, error: RefusedError, *, may_answer: bool) -> None:
        """Send an error response, and discard received data for a short time: unread data would reset the connection."""
        assert self._transport is not None  # noqa: S101 - it is admitted
        if self._inner is not None:
            self._inner.transport = None  # its end must not close the connection
        self._end(None)
        self._inner, self._framing, self._held = asyncio.Protocol(), Framing(), b""  # frees their buffers
        if not may_answer or self._transport.is_closing():
            self._transport.abort()
            return
        self._transport.release_reading()
        self._transport.resume_reading()
        self._transport.write(raw_error(error.status, error.reason))
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._stop_timer()
        self._start_timer(REFUSED_SECONDS)

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > REFUSED_BYTES and self._transport is not None:
            self._transport.abort()

    def _end(self, error: Exception | None) -> None:
        if self._is_in:
            self._is_in = self.is_fresh = self.is_busy = False
            if self._inner is not None:
                self._inner.connection_lost(error)

    def _start_timer(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._abort)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
