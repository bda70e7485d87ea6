"""The application: who calls, what they may do, and how errors are answered. The routes are handed to it.

One middleware, the outermost, decides who calls and what they may do before anything else is looked at, and turns every
error into JSON; a route cannot be reached around it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from ..core.errors import ForbiddenError, SchedulerdError, StoreError
from ..core.models import Actor, Role
from ..service.service import Service
from .callers import Callers
from .connections.limits import Gate
from .connections.protocol import begin, has_begun
from .requests import (
    host_name,
)
from .responses import (
    HTTP_REASONS,
    WrongHostError,
    answer,
    error_response,
    http_error,
)

log = logging.getLogger(__name__)

LARGEST_BODY = 64 * 1024  # bytes
SAFE_METHODS = frozenset({"GET", "HEAD"})

Handler = Callable[["Api", web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Route:
    """A way in: its verb's role is what the caller needs."""

    method: str
    path: str
    handler: Handler
    verb: Callable[..., Any]

    @property
    def role(self) -> Role:
        """Return the role of the verb; a verb without one fails when the app is built."""
        role: Role = self.verb.role  # type: ignore[attr-defined]
        return role


class Api:
    """The application of one listener; `callers` says who makes a request, or raises UnauthenticatedError."""

    def __init__(
        self,
        service: Service,
        callers: Callers,
        hosts: frozenset[str] | None,
        routes: Sequence[Route],
        open_routes: Mapping[str, Handler],
    ) -> None:
        """`hosts` are the names that a Host header may have; None takes any (the Unix socket).

        `open_routes` are answered without authentication, by their paths.
        """
        self.service = service
        self.callers = callers
        self._hosts = hosts
        self._routes = routes
        self._open_routes = open_routes
        self._roles: dict[Any, Role] = {}
        self.gate: Gate | None = None  # the door's, once it is open

    def build(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._outermost], client_max_size=LARGEST_BODY)
        app.on_response_prepare.append(begin)
        for route in self._routes:
            bound = _bound(self, route.handler)
            self._roles[bound] = route.role
            app.router.add_route(route.method, route.path, bound)
        for path, handler in self._open_routes.items():
            app.router.add_get(path, _bound(self, handler))
        return app

    @web.middleware
    async def _outermost(self, request: web.Request, handler: Any) -> web.StreamResponse:
        transport = request.transport
        try:
            if self.gate is not None:
                may_stream = request.method in SAFE_METHODS
                self.gate.head_came(transport, may_stream=may_stream, behind=self.callers.behind(request))
            self._check_host(request)
            if request.path not in self._open_routes:
                request["actor"] = self._allow(request)
                self._check_start()
            if self.gate is not None:
                self.gate.check_share(transport)
            return await handler(request)  # type: ignore[no-any-return]
        except SchedulerdError as error:
            return _instead(request, error_response(error, request.get("actor")), error)
        except web.HTTPException as error:
            return _instead(request, http_error(error), error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:  # the edge of the API: the caller is told nothing of our insides, the log all
            if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
                raise  # who asked has gone away
            log.exception("%s %s failed", request.method, request.path)
            return _instead(request, answer({"detail": HTTP_REASONS[500]}, 500), error)
        finally:
            if self.gate is not None:
                self.gate.answered(transport)

    def _allow(self, request: web.Request) -> Actor:
        """Return the caller. Raise when they are unknown, may not use the route, or were sent by a page of another site."""
        actor = self.callers.identify(request)
        if self.gate is not None:
            self.gate.recognised(request.transport)
        role = self._roles.get(request.match_info.handler, Role.VIEWER)
        if actor.role < role:
            raise ForbiddenError(f"this needs the role {role.name.lower()}, {actor.name} is {actor.role.name.lower()}")
        if request.method not in SAFE_METHODS:
            self._check_origin(request)
        return actor

    def _check_start(self) -> None:
        if self.service.waits_for is not None:
            raise StoreError(f"the daemon waits for its history: {self.service.waits_for}")

    def _check_host(self, request: web.Request) -> None:
        if self._hosts is None:
            return
        given = request.headers.getall("Host", [])
        if len(given) != 1 or host_name(given[0]) not in self._hosts:
            raise WrongHostError("the Host header names no host of this daemon (see api.hosts in the configuration)")

    def _check_origin(self, request: web.Request) -> None:
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        same = origin is None or origin.partition("://")[2] == request.headers.get("Host")
        if not same or site not in ("same-origin", "none"):
            raise ForbiddenError("a page of another site may not change anything here")


def _bound(api: Api, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def call(request: web.Request) -> web.StreamResponse:
        return await handler(api, request)

    return call


def _instead(request: web.Request, response: web.Response, error: Exception) -> web.Response:
    """Return the answer of an error. Where another one has begun, end the connection, so that it is not taken for whole."""
    if not has_begun(request):
        return response
    log.info("%s %s: the answer ends before it is whole: %s", request.method, request.path, error)
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("an answer has begun already") from error
