"""Authentication: by the kernel on the Unix socket, by a bearer token on TCP.

A trusted proxy names the client for whom it makes a request.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from typing import Protocol

from aiohttp import web

from ..core.clock import Clock
from ..core.errors import UnauthenticatedError, UnsafeError
from ..core.models import Actor
from ..core.proxies import Network, caller_of, is_trusted, peer_of_address
from ..core.units import counted
from ..host.unix_sockets import peer_of
from .connections.admission import Caller, Rank
from .connections.tally import Tally
from .peer_roles import PeerRoles
from .responses import TooManyFailuresError, UncheckedError
from .tokens import Tokens

log = logging.getLogger(__name__)

MOST_LOGGED = 5  # addresses of failed logins in a minute that have a log line each
FAILURES, FAILURE_SECONDS = 10, 60.0  # of one address in this period; the response to further ones is 429
MOST_FAILURES = 200  # of all addresses in this period


class Authenticator(Protocol):
    """The method by which a listener identifies actors."""

    def classify(self, connection: socket.socket) -> Caller:
        """Return the caller of a new connection, as far as it is known."""

    def proxied_client(self, request: web.Request) -> str | None:
        """Return the client to whose limit a request through a trusted proxy counts, None for a direct request."""

    def identify(self, request: web.Request) -> Actor:
        """Return the actor of a request. Raise UnauthenticatedError, TooManyFailuresError or UncheckedError."""


class SocketAuthenticator:
    """Authenticates by the credentials that the kernel reports on the Unix socket (SO_PEERCRED, unix(7))."""

    def __init__(self, roles: PeerRoles) -> None:
        self._roles = roles

    def classify(self, connection: socket.socket) -> Caller:
        """Return the user of a connection."""
        try:
            _pid, uid, gid = peer_of(connection)
            actor = self._roles.find(uid, gid)
        except OSError as error:
            log.warning("api: cannot identify the user of a connection: %s", error.strerror or error)
            return Caller("an unknown user")
        own = uid in (0, os.geteuid())
        rank = Rank.OWN if own else Rank.KNOWN if actor else Rank.STRANGER
        return Caller(f"uid {uid}", rank, is_final=rank is Rank.STRANGER)

    def proxied_client(self, _request: web.Request) -> str | None:
        """Return None: a proxy on the Unix socket is the actor itself."""
        return None

    def identify(self, request: web.Request) -> Actor:
        """Return the user of the connection as an actor."""
        connection = request.get_extra_info("socket")
        if connection is None:
            raise UnauthenticatedError("the connection has ended")
        _pid, uid, gid = peer_of(connection)
        return self._roles.actor_of(uid, gid)


class TokenAuthenticator:
    """Authenticates by `Authorization: Bearer TOKEN` (RFC 6750) on TCP."""

    def __init__(self, tokens: Tokens, clock: Clock, proxies: tuple[Network, ...]) -> None:
        """`proxies` are the trusted proxies. Their X-Forwarded-For header names the client."""
        self._tokens = tokens
        self._throttle = LoginThrottle(clock)
        self._failed = Tally(_log_failed)
        self._proxies = proxies

    def classify(self, connection: socket.socket) -> Caller:
        """Return the address of a connection. That of a proxy counts to no limit until a request names the client."""
        try:
            address = str(connection.getpeername()[0])
        except OSError:  # the connection has ended
            address = "an unknown address"
        return Caller("" if is_trusted(address, self._proxies) else peer_of_address(address))

    def proxied_client(self, request: web.Request) -> str | None:
        """Return the address that a trusted proxy names."""
        address = request.remote or ""
        if not is_trusted(address, self._proxies):
            return None
        return peer_of_address(caller_of(address, request.headers.getall("X-Forwarded-For", []), self._proxies))

    def identify(self, request: web.Request) -> Actor:
        """Return the owner of the token. A request without one is not a failed login. A valid token is never throttled."""
        given = request.headers.getall("Authorization", [])
        if not given:
            raise UnauthenticatedError("a token is needed: Authorization: Bearer TOKEN")
        scheme, _, text = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        try:
            if scheme.lower() != "bearer" or not text.strip():
                raise UnauthenticatedError("a token is needed: Authorization: Bearer TOKEN")
            return self._owner_of(text.strip())
        except UnauthenticatedError as error:
            peer = self.proxied_client(request) or peer_of_address(request.remote or "")
            if self._failed.add(peer):
                log.warning("api: failed login from %s: %s", peer, error)
            self._throttle.on_failure(peer)
            raise

    def _owner_of(self, text: str) -> Actor:
        try:
            return self._tokens.actor_of(text)
        except UnsafeError:  # the log has the reason; the response does not mention files
            raise UncheckedError("tokens cannot be checked at present: see the daemon's log") from None


class LoginThrottle:
    """Limits the failed logins of each peer and of all peers together, so that tokens cannot be guessed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: deque[tuple[float, str]] = deque(maxlen=MOST_FAILURES)  # time and peer, oldest first

    def on_failure(self, peer: str) -> None:
        """Count a failed login. Raise TooManyFailuresError above the limits; such a failure is not counted."""
        now = self._clock.monotonic()
        while self._failures and now - self._failures[0][0] >= FAILURE_SECONDS:
            self._failures.popleft()
        if sum(whose == peer for _, whose in self._failures) >= FAILURES:
            raise TooManyFailuresError("too many failed logins from this address: wait a minute")
        if len(self._failures) >= MOST_FAILURES:
            raise TooManyFailuresError("too many failed logins from all addresses together: wait a minute")
        self._failures.append((now, peer))


def _log_failed(count: int, found: list[tuple[str, int]]) -> None:
    for peer, times in found[:MOST_LOGGED]:
        log.warning("api: %s from %s in the last minute", counted(times, "failed login"), peer)
        count -= times
    if count:
        log.warning("api: %s from other addresses in the last minute", counted(count, "failed login"))
