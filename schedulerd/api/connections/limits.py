"""Bounds on connections that aiohttp lacks: how many there are, how long and how much one may take to say what it wants.

A `Guard` stands between a transport and aiohttp's own protocol and passes on what is within bounds, one request a turn of
the loop. It aborts a connection that is one too many or whose request does not come in time, and refuses a head or a trailer
that is too large, with an answer where that cannot be taken for a part of another one. Idle connections between requests are
aiohttp's (keep-alive), unless somebody else needs their place (`crowd`). Who takes no answer is cut by `metering`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ...core.errors import BusyError
from ...core.units import counted
from ...host.accounts import name_of
from ...host.descriptors import capacity, is_spare
from ..responses import raw_refusal
from .admission import FEWEST, IN, Caller, Pace, Standing, Turn, Verdict, peer_verdict, turn_of, verdict
from .counts import Tally
from .framing import Framing, RefusedError
from .transport import Metered
from .turns import Turns

log = logging.getLogger(__name__)

MOST_UNANSWERED = 128  # requests of one connection
MOST_AHEAD = 128 * 1024  # bytes of requests that wait for the turn of another one of their connection
HEAD_SECONDS = 10.0
BODY_SECONDS = 35.0  # with its trailer; a handler that reads it waits for 30 s, and says so
REFUSED_SECONDS = 2.0  # for the caller to read why, before the connection is cut
REFUSED_BYTES = 1 << 20  # that are thrown away meanwhile, and of bodies that were answered before they were read
PACE = (200.0, 300.0)  # of those who stay strangers: a second, and at once. They get nothing but a 401


Look = Callable[[socket.socket], Caller]


def _stranger(_connection: socket.socket) -> Caller:
    return Caller("")


class Gate:
    """Knows the connections of one door, and makes a guard for each."""

    def __init__(self, make_protocol: Callable[[], Any], look: Look = _stranger) -> None:
        """`make_protocol` makes aiohttp's protocol for a connection; `look` says who is at the other end of one."""
        self.make_protocol = make_protocol
        self._look = look
        self._guards: dict[Metered, Guard] = {}
        self._of_caller: dict[Caller, Guard] = {}
        self.turns = Turns()  # of strangers
        self._pace = Pace(*PACE)
        self._changed = asyncio.Event()
        self._is_short = False  # the last connection was refused for want of descriptors
        self._closed = {is_for_pace: Tally(_tell_closed) for is_for_pace in (False, True)}

    def __call__(self) -> Guard:
        """Return the protocol of a new connection (what `loop.create_server` asks for)."""
        return Guard(self)

    async def settle(self, seconds: float) -> None:
        """Wait until each connection that came has its answer, but for so many seconds only (some wait for a run)."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(guard.is_fresh or guard.is_busy for guard in self._guards.values()):
                    self._changed.clear()
                    await self._changed.wait()

    def close(self) -> None:
        """End the connections that have not said anything yet; aiohttp ends the others."""
        for guard in [each for each in self._guards.values() if each.is_silent]:
            guard.leave()

    def head_came(self, transport: Any, *, may_stream: bool = False, behind: str | None = None) -> None:
        """Note that a request's head has come: from here on, its handler decides how long it takes, and streams or not.

        `behind` is for whose limit it counts when the connection is a proxy's.
        """
        guard = self._guards.get(transport)
        if guard is not None:
            guard.is_busy, guard.is_fresh, guard.is_streaming = True, False, may_stream
            guard.is_lent = behind is not None
            guard.caller.peer = guard.caller.peer if behind is None else behind

    def recognised(self, transport: Any) -> None:
        """Note that a caller has shown who they are."""
        guard = self._guards.get(transport)
        if guard is not None:
            guard.caller.standing = max(guard.caller.standing, Standing.KNOWN)

    def check_share(self, transport: Any) -> None:
        """Raise BusyError when who is behind a proxy has too many requests under way; others were counted as they came."""
        guard = self._guards.get(transport)
        if guard is not None and guard.is_lent:
            found = peer_verdict(guard.caller, self._of_caller)
            self._make_way(found, guard.caller)
            if not found.is_in:
                raise BusyError(f"too many requests at once: {found.reason}")

    def answered(self, transport: Any) -> None:
        """Note that a request has its answer: what comes now is the next one's head."""
        guard = self._guards.get(transport)
        if guard is not None:
            guard.is_busy = guard.is_streaming = False
            guard.answers += 1
            if guard.is_lent:  # the next one may be another caller's
                guard.caller.peer, guard.caller.standing = "", Standing.STRANGER
            guard.watch()
            self._changed.set()

    def admit(self, guard: Guard, transport: Metered) -> bool:
        """Take a connection in, for which another one may have to go, or say that it is one too many."""
        connection = transport.get_extra_info("socket")
        guard.caller = self._look(connection)
        found = self._verdict(connection, guard.caller)
        self._make_way(found, guard.caller)
        if found.is_in:
            self._guards[transport] = self._of_caller[guard.caller] = guard
        return found.is_in

    def turn_of(self, connection: socket.socket, speaks: Callable[[socket.socket], bool]) -> Turn:
        """Return what is done with a connection that was just accepted; `speaks` tells whether a whole head has come."""
        caller = self._look(connection)
        if caller.is_final and not self._pace.takes(asyncio.get_running_loop().time()):
            reason = f"users without a role come more than {PACE[0]:g} times a second"
            self._tell(Verdict(False, reason=reason), caller, is_for_pace=True)
            return Turn.OUT
        let_in = Turn.ASIDE if caller.is_final else Turn.IN
        if len(self._of_caller) < FEWEST:
            return let_in
        found = self._verdict(connection, caller)
        turn = Turn.IN if found is IN else turn_of(found, caller, speaks=speaks(connection))
        if turn is Turn.OUT:
            self._tell(found, caller)
        return let_in if turn is Turn.IN else turn

    def _verdict(self, connection: socket.socket, caller: Caller) -> Verdict:
        caller.came = asyncio.get_running_loop().time()
        is_short = not is_spare(connection.fileno())
        found = verdict(caller, self._of_caller, is_short=is_short)
        is_refused = is_short and not found.is_in
        if is_refused and not self._is_short:
            log.error("connections are refused: %s", capacity(())["trouble"] or "too few descriptors were left")
        self._is_short = is_refused
        return found

    def _make_way(self, found: Verdict, comer: Caller) -> None:
        """Close the connection that has to go, and say now and then that there is a crowd."""
        if found.leaves is not None:
            self._of_caller[found.leaves].leave()
        self._tell(found, comer)

    def _tell(self, found: Verdict, comer: Caller, *, is_for_pace: bool = False) -> None:
        """Count who is closed for another one, or refused; the first one is told at once."""
        if found.reason and self._closed[is_for_pace].add((found.leaves or comer).peer):
            log.warning("connections are closed to make room, or refused: %s", found.reason)

    def forget(self, guard: Guard, transport: Metered) -> None:
        """Take a connection off the list."""
        self._changed.set()
        self._guards.pop(transport, None)
        self._of_caller.pop(guard.caller, None)


def _tell_closed(count: int, found: list[tuple[str, int]]) -> None:
    peer, times = found[0]
    uid = peer.removeprefix("uid ")
    who = f"{name_of(int(uid))} ({peer})" if uid != peer else peer or "a trusted proxy"
    log.warning("closed or refused %s in the last minute, %d of them of %s", counted(count, "connection"), times, who)


class Guard(asyncio.Protocol):
    """One connection's bounds, before aiohttp's protocol `inner`."""

    def __init__(self, gate: Gate) -> None:
        self.caller = Caller("")
        self.is_fresh = True  # it has not had its first request
        self.is_busy = False  # with a request: what comes meanwhile is its body, or the next one's head, which may wait
        self.is_streaming = False  # the handler may have begun to send its answer
        self.is_lent = False  # it is a proxy's, and its request somebody else's
        self.answers = 0  # that aiohttp has from our handlers
        self._gate = gate
        self._inner: Any = None
        self._framing = Framing()
        self._held = b""  # what came after the request whose turn it is
        self._is_paused = False  # the caller does not take its answer as fast as it is made
        self._transport: Metered | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timed: tuple[int, bool] | None = None  # what the timer is for: after how many heads, a body or a head
        self._is_in = False
        self._thrown_away = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let a connection in, or abort it."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - doors are streams
        metered = Metered(transport)
        self._is_in = self._gate.admit(self, metered)
        if not self._is_in:
            transport.abort()
            return
        self._transport = metered
        self.watch()

    def data_received(self, data: bytes) -> None:
        """Pass on what came and is within bounds."""
        if not self._is_in:
            self._throw_away(data)
        elif self._held:
            self._held += data
        elif self.caller.standing is Standing.STRANGER and not self._gate.turns.take(is_first=not self._framing.heads):
            self._held = data
            self._go_on_later()
            self._note_idle()
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        heads, was_in_body = self._framing.heads, self._framing.is_in_body
        if was_in_body and heads == self.answers:  # it has its answer, and sends on what nobody will read
            self._throw_away(data)
        try:
            ready, self._held = self._framing.feed(data)
            if len(self._held) > MOST_AHEAD:
                raise RefusedError(400, f"more than {MOST_AHEAD} bytes of requests wait for another one")
            if self._framing.heads - self.answers > MOST_UNANSWERED:
                raise RefusedError(400, f"more than {MOST_UNANSWERED} requests wait for their answers")
        except RefusedError as error:
            self._refuse(error, may_answer=not self.is_streaming and heads - self.answers == was_in_body)
            return
        self.watch()
        if self._held:  # other connections have their turn first
            self._go_on_later()
        if ready:
            self._pass_on(ready)

    def _pass_on(self, ready: bytes) -> None:
        if self._inner is None:  # who says nothing costs little
            self._inner = self._gate.make_protocol()
            self._inner.connection_made(self._transport)
            if self._is_paused:
                self._inner.pause_writing()
        self._inner.data_received(ready)

    def _go_on_later(self) -> None:
        """Go on with what is held in a later turn; until then nothing more is read, or it would be held, too."""
        if self._transport is not None:
            self._transport.hold()
        if self.caller.standing is Standing.STRANGER:
            self._gate.turns.queue(self._go_on, is_first=not self._framing.heads)
        else:
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        held, self._held = self._held, b""
        if self._transport is not None:
            self._transport.let_go()
        if self._is_in and self._transport is not None and not self._transport.is_closing():
            self._take(held)

    def watch(self) -> None:
        """Start the time of a head or a body that has begun, and stop it when it has come; a head waits for an answer."""
        self._note_idle()
        framing, is_in_body = self._framing, self._framing.is_in_body
        is_in_head = not framing.heads or (not self.is_busy and framing.is_in_head)
        due = (framing.heads, is_in_body) if is_in_body or is_in_head else None
        if due == self._timed or not self._is_in:
            return
        self._stop_waiting()
        if due is not None:
            self._wait(BODY_SECONDS if is_in_body else HEAD_SECONDS)
        self._timed = due

    def _note_idle(self) -> None:
        if self.caller.standing is Standing.STRANGER:  # by the first request they may show who they are; it counts alone
            is_asking = not self.answers and bool(self._framing.heads or self._held)
        else:
            is_asking = self._framing.heads > self.answers
        self.caller.is_idle = self._is_paused or not is_asking

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timed = None

    def connection_lost(self, error: Exception | None) -> None:
        """Pass on the end."""
        self._stop_waiting()
        if self._transport is not None:
            self._transport.stop()
            self._gate.forget(self, self._transport)
        self._end(error)

    @property
    def is_silent(self) -> bool:
        """Return whether nothing was passed on to aiohttp, which does not know of the connection then."""
        return self._inner is None

    def leave(self) -> None:
        """Go at once, for somebody else."""
        if self._transport is not None:
            self._gate.forget(self, self._transport)
            self._transport.abort()

    def eof_received(self) -> bool | None:
        """Pass on that the caller sends no more."""
        return bool(self._inner.eof_received()) if self._is_in and self._inner is not None else None

    def pause_writing(self) -> None:
        """Pass on that the caller reads slower than it is answered."""
        self._is_paused = True
        self._note_idle()
        if self._is_in and self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the caller has read."""
        self._is_paused = False
        self._note_idle()
        if self._is_in and self._inner is not None:
            self._inner.resume_writing()

    def _refuse(self, error: RefusedError, *, may_answer: bool) -> None:
        """Say why and read no more of what is meant; what comes is thrown away for a moment, or the answer would be lost."""
        assert self._transport is not None  # noqa: S101 - it is in
        if self._inner is not None:
            self._inner.transport = None  # its end must not close ours
        self._end(None)
        self._inner, self._framing, self._held = asyncio.Protocol(), Framing(), b""  # what they held goes now
        if not may_answer or self._transport.is_closing():
            self._transport.abort()
            return
        self._transport.let_go()
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

    def _end(self, error: Exception | None) -> None:
        if self._is_in:
            self._is_in = self.is_fresh = self.is_busy = False
            if self._inner is not None:
                self._inner.connection_lost(error)

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        if self._transport is not None:
            self._transport.abort()
