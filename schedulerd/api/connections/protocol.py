"""aiohttp's protocol, whose own errors (a head that is no HTTP, an expectation that nobody meets) are answered as ours are.

It also sees to it that one request has one answer: where a head was sent already, the connection ends instead.
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
    """A whole answer that is made already and goes out as it is, after which the connection ends."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status=status)
        self._whole = raw_error(status, reason)
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send it."""
        if request.transport is not None:
            request.transport.write(self._whole)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send no more."""


class Protocol(web.RequestHandler):
    """One connection, as aiohttp speaks HTTP on it."""

    __slots__ = ("begun",)
    begun: web.BaseRequest | None  # the request whose answer's head was sent last

    def data_received(self, data: bytes) -> None:
        """Read what came, and end the connection over what aiohttp does not expect."""
        try:
            super().data_received(data)
        except ValueError as error:  # 3.8 lets an address through that urllib does not take
            log.debug("a connection ends over what came: %s", error)
            if self.transport is not None:
                self.transport.abort()

    async def start(self) -> None:
        """Answer the requests of the connection, until it ends; when it has ended before one was begun, there is none."""
        try:
            await super().start()
        except (AssertionError, TypeError) as error:
            if self.transport is not None:
                raise
            log.debug("a connection has ended before its request was begun: %r", error)

    def log_exception(self, *args: Any, **more: Any) -> None:
        """Tell of an error, unless it is that of `start`: 3.8 catches it on its own."""
        if self.transport is not None or not isinstance(more.get("exc_info"), AssertionError):
            super().log_exception(*args, **more)

    async def finish_response(self, request: web.BaseRequest, resp: web.StreamResponse, *more: Any) -> Any:
        """Send an answer, with ours in place of one that aiohttp has raised before any of our code was asked."""
        if isinstance(resp, web.HTTPException):
            resp = Refusal(resp.status, HTTP_REASONS.get(resp.status, resp.reason))
        return await super().finish_response(request, resp, *more)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Return the answer to what is no HTTP, or failed outside of our code. Raise ConnectionResetError for none."""
        if isinstance(exc, ConnectionError) or has_begun(request):
            raise ConnectionResetError("no other answer can be given on this connection") from exc
        if isinstance(exc, LineTooLong):
            return Refusal(431, f"a line of the head, or a value in it, is over {LONGEST_LINE} bytes")
        if status >= 500:
            log.error("%s %s failed", request.method, request.path, exc_info=exc)
        else:  # anybody can send one, and must not fill the log
            log.debug("a bad request: %s", message or exc)
        return Refusal(status, HTTP_REASONS.get(status, "the request cannot be answered"))


async def begin(request: web.Request, response: web.StreamResponse) -> None:
    """Note that the head of an answer goes out now, and take out who made it (a signal of the application)."""
    request.protocol.begun = request  # type: ignore[attr-defined]
    response.headers.pop("Server", None)


def has_begun(request: web.BaseRequest) -> bool:
    """Return whether the head of an answer to a request was sent: then there can be no other one."""
    return getattr(request.protocol, "begun", None) is request


def protocols(server: web.Server) -> Callable[[], Protocol]:
    """Return what makes the protocol of each new connection to `server`."""
    loop = asyncio.get_running_loop()
    bounds = {"max_line_size": LONGEST_LINE, "max_field_size": LONGEST_LINE, "keepalive_timeout": KEEPALIVE_SECONDS}
    options: dict[str, Any] = {**bounds, "auto_decompress": False, "access_log": None}
    return partial(Protocol, server, loop=loop, **options)
