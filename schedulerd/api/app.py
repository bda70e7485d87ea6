"""The aiohttp application of one listener: authentication, authorization and error responses.

The outermost middleware identifies the actor and checks the role before any handler reads the request, and converts each
error into JSON. No route can be reached without it. The routes are passed in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from aiohttp import web

from ..core.errors import ForbiddenError, SchedulerdError, StoreError
from ..core.models import Actor, Role
from ..service.roles import check_role, role_of
from ..service.service import Service
from .auth import Authenticator
from .connections.limits import ConnectionLimits
from .connections.protocol import begin, has_begun
from .requests import host_name
from .responses import HTTP_REASONS, WrongHostError, answer, error_response, http_error, in_thread

log = logging.getLogger(__name__)

LARGEST_BODY = 64 * 1024  # bytes
SAFE_METHODS = frozenset({"GET", "HEAD"})

Handler = Callable[["Api", web.Request], Awaitable[web.StreamResponse]]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Route:
    """One route. It requires the role of `operation`, an operation of the service."""

    method: str
    path: str
    handler: Handler
    operation: Callable[..., Any]

    @property
    def role(self) -> Role:
        """Return the role that the route requires. Raise AttributeError when the operation declares none."""
        return role_of(self.operation)


class Api:
    """The application of one listener; `authenticator` identifies the actor of each request."""

    def __init__(
        self,
        service: Service,
        authenticator: Authenticator,
        hosts: frozenset[str] | None,
        routes: Sequence[Route],
        open_routes: Mapping[str, Handler],
    ) -> None:
        """`hosts` are the names that a Host header may contain; None accepts any name (on the Unix socket).

        `open_routes` maps the paths that need no authentication to their handlers.
        """
        self.service = service
        self.limits = ConnectionLimits(authenticator.classify)
        self._authenticator = authenticator
        self._hosts = hosts
        self._routes = routes
        self._open_routes = open_routes
        self._operations: dict[Any, Callable[..., Any]] = {}  # by bound handler

    def build(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._outermost], client_max_size=LARGEST_BODY)
        app.on_response_prepare.append(begin)
        for route in self._routes:
            bound = _bound(self, route.handler)
            role_of(route.operation)  # raises AttributeError for an operation without a role
            self._operations[bound] = route.operation
            app.router.add_route(route.method, route.path, bound)
        for path, handler in self._open_routes.items():
            app.router.add_get(path, _bound(self, handler))
        return app

    def permitted(self, request: web.Request, operation: Callable[P, T]) -> Callable[P, T]:
        """Return an operation of the service if the actor of a request may use it. Raise ForbiddenError."""
        check_role(operation, request["actor"])
        return operation

    async def call(self, request: web.Request, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call an operation of the service in a thread, on behalf of the actor of a request. Raise ForbiddenError."""
        return await in_thread(self.permitted(request, operation), *args, **kwargs)

    @web.middleware
    async def _outermost(self, request: web.Request, handler: Any) -> web.StreamResponse:
        transport = request.transport
        try:
            may_stream = request.method in SAFE_METHODS
            self.limits.on_head(transport, may_stream=may_stream, client=self._authenticator.proxied_client(request))
            self._check_host(request)
            if request.path not in self._open_routes:
                request["actor"] = self._allow(request)
                self._check_start()
            self.limits.check_client(transport)
            return await handler(request)  # type: ignore[no-any-return]
        except SchedulerdError as error:
            return _instead(request, error_response(error, request.get("actor")), error)
        except web.HTTPException as error:
            return _instead(request, http_error(error), error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:  # the boundary of the API: internals are logged, and not sent to the caller
            if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
                raise  # the caller has disconnected
            log.exception("api: %s %s failed", request.method, request.path)
            return _instead(request, answer({"detail": HTTP_REASONS[500]}, 500), error)
        finally:
            self.limits.on_response(transport)

    def _allow(self, request: web.Request) -> Actor:
        """Return the actor of a request.

        Raise UnauthenticatedError for an unknown one, ForbiddenError when their role is too low for the route or a page of
        another site has sent the request.
        """
        actor = self._authenticator.identify(request)
        self.limits.on_authenticated(request.transport)
        route = self._operations.get(request.match_info.handler)
        if route is not None:
            check_role(route, actor)
        if request.method not in SAFE_METHODS:
            self._check_origin(request)
        return actor

    def _check_start(self) -> None:
        if (why := self.service.waits_for()) is not None:
            raise StoreError(f"the daemon is waiting for the store: {why}")

    def _check_host(self, request: web.Request) -> None:
        if self._hosts is None:
            return
        given = request.headers.getall("Host", [])
        if len(given) != 1 or host_name(given[0]) not in self._hosts:
            raise WrongHostError("the Host header does not name this daemon: add the name to api.hosts in the configuration")

    def _check_origin(self, request: web.Request) -> None:
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        same = origin is None or origin.partition("://")[2] == request.headers.get("Host")
        if not same or site not in ("same-origin", "none"):
            raise ForbiddenError("requests from pages of other sites cannot change anything")


def _bound(api: Api, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def call(request: web.Request) -> web.StreamResponse:
        return await handler(api, request)

    return call


def _instead(request: web.Request, response: web.Response, error: Exception) -> web.Response:
    """Return an error response. Abort the connection instead when another response has begun: it is incomplete."""
    if not has_begun(request):
        return response
    log.info("api: %s %s: response aborted: %s", request.method, request.path, error)
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("the response has begun already") from error
