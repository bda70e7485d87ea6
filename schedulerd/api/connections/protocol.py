"""aiohttp's protocol, with error responses of our own for its own errors (invalid HTTP, an unsupported expectation).

It also ensures that a request has one response. When the head of one has been sent, an error closes the connection instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from ..responses import HTTP_REASONS, raw_error

log = logging.getLogger(__name__)

KEEPALIVE_SECONDS = 30.0
LONGEST_LINE = 8190  # bytes of the first line, of a header's name, and of its value


class Refusal(web.StreamResponse):
    """A complete response that is sent unchanged. Then the connection is closed."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status=status)
        self._whole = raw_error(status, reason)
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send the response."""
        if request.transport is not None:
            request.transport.write(self._whole)

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the response is complete."""


class Protocol(web.RequestHandler):
    """The HTTP protocol of one connection."""

    __slots__ = ("begun",)
    begun: web.BaseRequest | None  # the request whose response head was sent last

    def data_received(self, data: bytes) -> None:
        """Parse received data. Abort the connection on an error that aiohttp does not handle."""
        try:
            super().data_received(data)
        except ValueError as error:  # aiohttp 3.8 passes on an address that urllib rejects
            log.debug("a connection ends over what came: %s", error)
            if self.transport is not None:
                self.transport.abort()

    async def start(self) -> None:
        """Respond to the requests of the connection, until it ends. It may end before the first request is begun."""
        try:
            await super().start()
        except (AssertionError, TypeError) as error:
            if self.transport is not None:
                raise
            log.debug("a connection has ended before its request was begun: %r", error)

    def log_exception(self, *args: Any, **more: Any) -> None:
        """Log an error, except that of `start`, which aiohttp 3.8 catches itself."""
        if self.transport is not None or not isinstance(more.get("exc_info"), AssertionError):
            super().log_exception(*args, **more)

    async def finish_response(self, request: web.BaseRequest, resp: web.StreamResponse, *more: Any) -> Any:
        """Send a response. An error that aiohttp raised before it called our code is replaced by our own response."""
        if isinstance(resp, web.HTTPException):
            resp = Refusal(resp.status, HTTP_REASONS.get(resp.status, resp.reason))
        return await super().finish_response(request, resp, *more)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Return the response to invalid HTTP or to an error outside our code. Raise ConnectionResetError to send none."""
        if isinstance(exc, ConnectionError) or has_begun(request):
            raise ConnectionResetError("no other answer can be given on this connection") from exc
        if isinstance(exc, LineTooLong):
            return Refusal(431, f"a line of the head, or a value in it, is over {LONGEST_LINE} bytes")
        if status >= 500:
            log.error("%s %s failed", request.method, request.path, exc_info=exc)
        else:  # any caller can send one, and must not fill the log
            log.debug("a bad request: %s", message or exc)
        return Refusal(status, HTTP_REASONS.get(status, "the request cannot be answered"))


async def begin(request: web.Request, response: web.StreamResponse) -> None:
    """Record that the head of a response is being sent, and remove its Server header (a signal of the application)."""
    request.protocol.begun = request  # type: ignore[attr-defined]
    response.headers.pop("Server", None)


def has_begun(request: web.BaseRequest) -> bool:
    """Return whether the head of a response to a request was sent. Then no other response can be sent."""
    return getattr(request.protocol, "begun", None) is request


def protocols(server: web.Server) -> Callable[[], Protocol]:
    """Return the protocol factory for new connections to `server`."""
    loop = asyncio.get_running_loop()
    bounds = {"max_line_size": LONGEST_LINE, "max_field_size": LONGEST_LINE, "keepalive_timeout": KEEPALIVE_SECONDS}
    options: dict[str, Any] = {**bounds, "auto_decompress": False, "access_log": None}
    return partial(Protocol, server, loop=loop, **options)
