"""The web server: one aiohttp application for each listening socket, since each listener authenticates in its own way."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from aiohttp import web

from ..config.config import ApiSettings
from ..core.clock import Clock
from ..service.service import Service
from .app import Api
from .auth import SocketAuthenticator, TokenAuthenticator
from .connections.acceptor import ConnectionFilter, FilteredListener
from .connections.guard import guarded
from .connections.limits import ConnectionLimits
from .connections.protocol import protocols
from .listeners import BACKLOG
from .peer_roles import PeerRoles
from .routes import OPEN_ROUTES, ROUTES
from .tokens import Tokens

ACCEPTED_AT_ONCE = 2  # connections; about four times as many are open before the first is refused, from the reserve
CLOSE_SECONDS = 2.0
DRAIN_SECONDS = 1.0
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Server:
    """Serves the API on listening sockets."""

    def __init__(self) -> None:
        self._endpoints: list[tuple[asyncio.Server, web.AppRunner, ConnectionLimits]] = []
        self._filters: list[ConnectionFilter] = []

    async def open(self, listener: socket.socket, api: Api) -> Any:
        """Serve the API on a listening socket, which the server then owns. Return its address."""
        runner = web.AppRunner(api.build(), access_log=None, handle_signals=False)
        await runner.setup()
        assert runner.server is not None  # noqa: S101 - set by setup()
        protocol = guarded(api.limits, protocols(runner.server))
        accepting = ConnectionFilter(api.limits.decide, protocol)
        self._filters.append(accepting)
        filtered = FilteredListener(listener, accepting)
        # Not create_unix_server: from Python 3.13 on it removes the path of the socket, which may be another process's.
        server = await asyncio.get_running_loop().create_server(protocol, sock=filtered, backlog=ACCEPTED_AT_ONCE)
        filtered.listen(BACKLOG)  # asyncio uses its own `backlog` also as the number of connections accepted per iteration
        self._endpoints.append((server, runner, api.limits))
        return filtered.getsockname()

    def retire(self, path: str) -> None:
        """Stop listening on the sockets of a path that a new socket has replaced. Open connections continue."""
        for server, _, _ in self._endpoints:
            if any(listener.getsockname() == path for listener in server.sockets):
                server.close()

    async def stop_listening(self) -> None:
        """Admit no further connection, and respond to those that were admitted.

        On a socket that systemd has passed, the next daemon accepts the others.
        """
        loop = asyncio.get_running_loop()
        for listener in (each for server, _, _ in self._endpoints for each in server.sockets):
            loop.remove_reader(listener.fileno())
        await asyncio.sleep(0)  # a socket that was just accepted becomes a connection; after `close` it would be dropped
        for server, _, _ in self._endpoints:
            server.close()
        for each in self._filters:
            each.close()
        for _, _, limits in self._endpoints:
            await limits.drain(DRAIN_SECONDS)

    async def close(self) -> None:
        """Stop listening, and give requests in progress a short time to end."""
        await self.stop_listening()
        for _, runner, limits in self._endpoints:
            limits.close()
            if runner.server is not None:
                await runner.server.shutdown(CLOSE_SECONDS)
            await runner.cleanup()


def unix_api(service: Service, settings: ApiSettings, clock: Clock) -> Api:
    """Return the API for the Unix socket."""
    roles = PeerRoles(settings.socket_group, settings.peers, clock)
    return Api(service, SocketAuthenticator(roles), None, ROUTES, OPEN_ROUTES)


def tcp_api(service: Service, settings: ApiSettings, tokens: Tokens, clock: Clock) -> Api:
    """Return the API for TCP."""
    own = f"[{settings.host}]" if settings.host and ":" in settings.host else settings.host or ""
    hosts = LOOPBACK_NAMES | {own.lower()} | {name.lower() for name in settings.hosts}
    return Api(service, TokenAuthenticator(tokens, clock, settings.trusted_proxy), hosts, ROUTES, OPEN_ROUTES)
