"""Limits the connections of one listener, in total and for each peer, which aiohttp does not do.

`guard.py` enforces the limits of a single connection, `transport.py` aborts one whose peer does not read. aiohttp closes
connections that are idle between two requests (keep-alive), unless admission has closed them for others.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from ...core.errors import BusyError
from ...core.units import counted
from ...host.accounts import name_of
from ...host.descriptors import capacity, is_spare
from .admission import (
    ADMITTED,
    FEWEST,
    AdmissionDecision,
    Caller,
    Rank,
    RateLimit,
    Verdict,
    decide,
    peer_verdict_on,
    verdict_on,
)
from .loop_share import LoopShare
from .tally import Tally
from .transport import MeteredTransport

log = logging.getLogger(__name__)

STRANGER_RATE = (200.0, 300.0)  # users without a role: per second, and in a burst. The only response is 401

Classify = Callable[[socket.socket], Caller]


class LimitedConnection(Protocol):
    """The interface of a connection that the limits use."""

    caller: Caller
    is_fresh: bool  # it has not sent its first request
    is_busy: bool  # a request is in progress: received data is its body, or the next head, which may wait
    is_streaming: bool  # the handler may have begun to send the response
    is_proxied: bool  # it belongs to a proxy, and its request to another client
    answers: int  # responses that handlers have returned

    @property
    def is_silent(self) -> bool:
        """Return whether no data was passed on to aiohttp. Then aiohttp does not know the connection."""

    def watch(self) -> None:
        """Start or stop the timeout of a head or a body."""

    def leave(self) -> None:
        """Abort the connection at once."""


def _stranger(_connection: socket.socket) -> Caller:
    return Caller("")


class ConnectionLimits:
    """Admits the connections of one listener, and follows their requests."""

    def __init__(self, classify: Classify = _stranger) -> None:
        """`classify` returns the caller of a new connection, as far as it is known."""
        self.loop_share = LoopShare()  # of strangers
        self._classify = classify
        self._connections: dict[MeteredTransport, LimitedConnection] = {}
        self._of_caller: dict[Caller, LimitedConnection] = {}
        self._stranger_rate = RateLimit(*STRANGER_RATE)
        self._changed = asyncio.Event()
        self._is_short = False  # the last connection was refused for lack of descriptors
        self._closed = {is_for_rate: Tally(_log_closed) for is_for_rate in (False, True)}

    async def drain(self, seconds: float) -> None:
        """Wait until each connection has its response, for at most `seconds`, since some requests wait for runs."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(each.is_fresh or each.is_busy for each in self._connections.values()):
                    self._changed.clear()
                    await self._changed.wait()

    def close(self) -> None:
        """Abort the connections that have sent nothing. aiohttp closes the others."""
        for connection in [each for each in self._connections.values() if each.is_silent]:
            connection.leave()

    def on_head(self, transport: Any, *, may_stream: bool = False, client: str | None = None) -> None:
        """Record that the head of a request has arrived. From now on its handler controls timeouts and streaming.

        `client` is the peer to whose limit the request counts, when the connection belongs to a proxy.
        """
        connection = self._connections.get(transport)
        if connection is not None:
            connection.is_busy, connection.is_fresh, connection.is_streaming = True, False, may_stream
            connection.is_proxied = client is not None
            connection.caller.peer = connection.caller.peer if client is None else client

    def on_authenticated(self, transport: Any) -> None:
        """Record that a request was authenticated."""
        connection = self._connections.get(transport)
        if connection is not None:
            connection.caller.rank = max(connection.caller.rank, Rank.KNOWN)

    def check_client(self, transport: Any) -> None:
        """Raise BusyError when a client behind a proxy has too many requests in progress.

        The connections of other callers were counted on arrival.
        """
        connection = self._connections.get(transport)
        if connection is not None and connection.is_proxied:
            found = peer_verdict_on(connection.caller, self._of_caller)
            self._make_room(found, connection.caller)
            if not found.is_admitted:
                raise BusyError(f"too many requests at once: {found.reason}")

    def on_response(self, transport: Any) -> None:
        """Record that a request has its response. The next data is another head."""
        connection = self._connections.get(transport)
        if connection is not None:
            connection.is_busy = connection.is_streaming = False
            connection.answers += 1
            if connection.is_proxied:  # the next request may belong to another client
                connection.caller.peer, connection.caller.rank = "", Rank.STRANGER
            connection.watch()
            self._changed.set()

    def admit(self, connection: LimitedConnection, transport: MeteredTransport) -> bool:
        """Admit a connection, for which another one may be closed. Return False when it must be aborted."""
        accepted = transport.get_extra_info("socket")
        connection.caller = self._classify(accepted)
        found = self._verdict_on(accepted, connection.caller)
        self._make_room(found, connection.caller)
        if found.is_admitted:
            self._connections[transport] = self._of_caller[connection.caller] = connection
        return found.is_admitted

    def decide(self, accepted: socket.socket, has_head: Callable[[socket.socket], bool]) -> AdmissionDecision:
        """Return the decision on a connection that was just accepted; `has_head` returns whether it has sent a head."""
        caller = self._classify(accepted)
        if caller.is_final and not self._stranger_rate.acquire(asyncio.get_running_loop().time()):
            reason = f"users without a role connect more than {STRANGER_RATE[0]:g} times a second"
            self._count_closed(Verdict(False, reason=reason), caller, is_for_rate=True)
            return AdmissionDecision.REFUSE
        admitted = AdmissionDecision.ADMIT_ASIDE if caller.is_final else AdmissionDecision.ADMIT
        if len(self._of_caller) < FEWEST:
            return admitted
        found = self._verdict_on(accepted, caller)
        decision = AdmissionDecision.ADMIT if found is ADMITTED else decide(found, caller, has_head=has_head(accepted))
        if decision is AdmissionDecision.REFUSE:
            self._count_closed(found, caller)
        return admitted if decision is AdmissionDecision.ADMIT else decision

    def _verdict_on(self, accepted: socket.socket, caller: Caller) -> Verdict:
        caller.came = asyncio.get_running_loop().time()
        is_short = not is_spare(accepted.fileno())
        found = verdict_on(caller, self._of_caller, is_short=is_short)
        is_refused = is_short and not found.is_admitted
        if is_refused and not self._is_short:
            log.error("api: refusing connections: %s", capacity(())["trouble"] or "too few descriptors were left")
        self._is_short = is_refused
        return found

    def _make_room(self, found: Verdict, comer: Caller) -> None:
        """Close the connection that a verdict names, and log that at a limited rate."""
        if found.closes is not None:
            self._of_caller[found.closes].leave()
        self._count_closed(found, comer)

    def _count_closed(self, found: Verdict, comer: Caller, *, is_for_rate: bool = False) -> None:
        """Count a connection that was closed or refused. The first one is logged at once."""
        if found.reason and self._closed[is_for_rate].add((found.closes or comer).peer):
            log.warning("api: closing or refusing connections: %s", found.reason)

    def forget(self, connection: LimitedConnection, transport: MeteredTransport) -> None:
        """Remove a connection that has ended."""
        self._changed.set()
        self._connections.pop(transport, None)
        self._of_caller.pop(connection.caller, None)


def _log_closed(count: int, found: list[tuple[str, int]]) -> None:
    peer, times = found[0]
    uid = peer.removeprefix("uid ")
    who = f"{name_of(int(uid))} ({peer})" if uid != peer else peer or "a trusted proxy"
    log.warning("api: closed or refused %s in the last minute, %d of %s", counted(count, "connection"), times, who)
