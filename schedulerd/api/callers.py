"""Who is calling: the kernel says it on the Unix socket, a token on TCP, and a trusted proxy says for whom it asks."""

from __future__ import annotations

import logging
import os
import socket
from typing import Protocol

from aiohttp import web

from ..core.clock import Clock
from ..core.errors import UnauthenticatedError, UnsafeError
from ..core.models import Actor
from ..core.proxies import Network, caller_of, is_trusted, peer_of_address
from ..core.units import counted
from ..host.unix_sockets import peer_of
from .auth import Peers, Throttle, Tokens
from .connections.admission import Caller, Standing
from .connections.counts import Tally
from .responses import UncheckedError

log = logging.getLogger(__name__)

MOST_TOLD = 5  # addresses of failed logins in a minute that have a line of their own in the log


class Callers(Protocol):
    """How one door knows who calls."""

    def look(self, connection: socket.socket) -> Caller:
        """Return who is at the other end of a connection, as far as it can be seen when it comes."""

    def behind(self, request: web.Request) -> str | None:
        """Return for whose limit a request counts that came through a trusted proxy; None when it did not."""

    def identify(self, request: web.Request) -> Actor:
        """Return who makes a request. Raise UnauthenticatedError, TooManyFailuresError or UncheckedError."""


class SocketCallers:
    """On the Unix socket the kernel says who connected (SO_PEERCRED, unix(7))."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    def look(self, connection: socket.socket) -> Caller:
        """Return the user at the other end."""
        try:
            _pid, uid, gid = peer_of(connection)
            actor = self._peers.find(uid, gid)
        except OSError as error:
            log.warning("a connection whose user cannot be known counts as a stranger's: %s", error.strerror or error)
            return Caller("an unknown user")
        own = uid in (0, os.geteuid())
        standing = Standing.OWN if own else Standing.KNOWN if actor else Standing.STRANGER
        return Caller(f"uid {uid}", standing, is_final=standing is Standing.STRANGER)

    def behind(self, _request: web.Request) -> str | None:
        """Return None: here a proxy would be who calls."""
        return None

    def identify(self, request: web.Request) -> Actor:
        """Return the user's role."""
        connection = request.get_extra_info("socket")
        if connection is None:
            raise UnauthenticatedError("the connection is gone")
        _pid, uid, gid = peer_of(connection)
        return self._peers.actor_of(uid, gid)


class TokenCallers:
    """On TCP it is `Authorization: Bearer …` (RFC 6750), and nothing else."""

    def __init__(self, tokens: Tokens, clock: Clock, proxies: tuple[Network, ...]) -> None:
        """`proxies` are those whose word is taken for whom a request is."""
        self._tokens = tokens
        self._throttle = Throttle(clock)
        self._failed = Tally(_tell_failed)
        self._proxies = proxies

    def look(self, connection: socket.socket) -> Caller:
        """Return the address at the other end; a proxy's counts for nobody until a request tells for whom it is."""
        try:
            address = str(connection.getpeername()[0])
        except OSError:  # it is gone already
            address = "an unknown address"
        return Caller("" if is_trusted(address, self._proxies) else peer_of_address(address))

    def behind(self, request: web.Request) -> str | None:
        """Return the address that a trusted proxy names."""
        address = request.remote or ""
        if not is_trusted(address, self._proxies):
            return None
        return peer_of_address(caller_of(address, request.headers.getall("X-Forwarded-For", []), self._proxies))

    def identify(self, request: web.Request) -> Actor:
        """Return whose token it is. Who gives none has not failed; who gives a good one is never throttled."""
        given = request.headers.getall("Authorization", [])
        if not given:
            raise UnauthenticatedError("a token is needed: Authorization: Bearer TOKEN")
        scheme, _, text = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        try:
            if scheme.lower() != "bearer" or not text.strip():
                raise UnauthenticatedError("a token is needed: Authorization: Bearer TOKEN")
            return self._known(text.strip())
        except UnauthenticatedError as error:
            peer = self.behind(request) or peer_of_address(request.remote or "")
            if self._failed.add(peer):
                log.warning("a failed login from %s: %s", peer, error)
            self._throttle.failed(peer)
            raise

    def _known(self, text: str) -> Actor:
        try:
            return self._tokens.actor_of(text)
        except UnsafeError:  # it is logged, for the operator's eyes: the caller learns nothing of our files
            raise UncheckedError("tokens cannot be checked now: see the daemon's log") from None


def _tell_failed(count: int, found: list[tuple[str, int]]) -> None:
    for peer, times in found[:MOST_TOLD]:
        log.warning("%s from %s in the last minute", counted(times, "failed login"), peer)
        count -= times
    if count:
        log.warning("%s from other addresses in the last minute", counted(count, "failed login"))
