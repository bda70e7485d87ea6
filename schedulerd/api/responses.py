"""Creates responses: JSON with the headers that all responses have, and errors with the status of their class."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from typing import Any, ParamSpec, TypeVar

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from ..backups.source import BackupError
from ..core.errors import (
    BusyError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    SchedulerdError,
    StoppingError,
    StoreError,
    UnauthenticatedError,
    UnsafeError,
    WrongTypeError,
)
from ..core.models import Actor, Role
from ..service.serializers import to_bytes

log = logging.getLogger(__name__)

PREFIX = "/api/v1/scheduler"

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

HTTP_REASONS = {  # our messages for aiohttp's own errors
    400: "the request is no well-formed HTTP",
    404: "there is no such path",
    405: "this path does not take that method",
    413: "the body of the request is too large",
    417: "the only expectation that is met is 100-continue",
    500: "internal error: see the daemon's log",
}

NOTICE = "Schedulerd-Notice"  # a notice for users in a successful response

PIECE_BYTES = 64 * 1024  # of a body that are written to a connection at once

P = ParamSpec("P")
T = TypeVar("T")


class TooManyFailuresError(SchedulerdError):
    """Too many failed logins from one address."""


class UncheckedError(SchedulerdError):
    """No token can be checked at present. The caller is not the cause."""


class WrongHostError(SchedulerdError):
    """The Host header names another server (a web page may have made a browser send the request)."""


STATUS_OF: dict[type[SchedulerdError], int] = {
    UnauthenticatedError: 401,
    ForbiddenError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    GoneError: 410,
    WrongTypeError: 415,
    WrongHostError: 421,
    InvalidError: 422,
    TooManyFailuresError: 429,
    BusyError: 429,
    StoppingError: 503,
    UncheckedError: 503,
    StoreError: 503,
    UnsafeError: 503,
    BackupError: 503,
}


# The messages for callers other than admins, instead of those that may contain paths, statements or servers.
INSIDE: dict[type[SchedulerdError], str] = {
    StoreError: "the history cannot be asked or changed now: /readyz says how it is, the daemon's log why",
    UnsafeError: "this cannot be done safely now: the daemon's log says why",
}


def answer(value: Any, status: int = 200) -> web.Response:
    """Return `value` as a response in JSON."""
    return answer_bytes(to_bytes(value), status)


class _Pieces(Payload):
    """A large body, sent no faster than its caller reads it: the connection buffers only a piece of it."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body, content_type="application/json")
        self._size = len(body)
        self._body = body

    async def write(self, writer: AbstractStreamWriter) -> None:
        for start in range(0, len(self._body), PIECE_BYTES):
            await writer.write(self._body[start : start + PIECE_BYTES])

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._body.decode(encoding, errors)


def answer_bytes(body: bytes, status: int = 200) -> web.Response:
    """Return serialized JSON as a response."""
    if len(body) > PIECE_BYTES:
        return web.Response(body=_Pieces(body), status=status, headers=HEADERS)
    return web.Response(body=body, status=status, headers=HEADERS, content_type="application/json")


def raw_error(status: int, reason: str, **more: str) -> bytes:
    """Return a complete response, with `more` headers, for a connection whose requests are not read any more."""
    body = to_bytes({"detail": reason})
    fields = {**HEADERS, **more, "Content-Type": "application/json", "Content-Length": len(body), "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{head}\r\n".encode() + body


def http_error(error: web.HTTPException) -> web.Response:
    """Return an error of aiohttp as JSON."""
    response = answer({"detail": HTTP_REASONS.get(error.status, error.reason)}, error.status)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def error_response(error: SchedulerdError, actor: Actor | None = None) -> web.Response:
    """Return a SchedulerdError as JSON, with the status of its class. Only admins receive internal details."""
    status = next((code for kind, code in STATUS_OF.items() if isinstance(error, kind)), 500)
    words: Any = [error.detail] if isinstance(error, InvalidError) else str(error)
    instead = next((text for kind, text in INSIDE.items() if isinstance(error, kind)), None)
    if instead is not None and (actor is None or actor.role < Role.ADMIN):
        log.info("not told to %s: %s", actor.name if actor is not None else "a caller", error)
        words = instead
    response = answer({"detail": words}, status)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="schedulerd"'
    if status in (429, 503):
        response.headers["Retry-After"] = "10"
    return response


async def settled(future: Future[T]) -> T:
    """Await a future of another thread, without cancelling it when the caller disconnects."""
    return await asyncio.shield(asyncio.wrap_future(future))


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call, in a thread, a function that may wait for a disk or a server. Raise BusyError when no thread is available."""
    try:
        called = asyncio.get_running_loop().run_in_executor(None, partial(function, *args, **kwargs))
    except RuntimeError as error:
        raise BusyError(f"the daemon has no thread for the request: {error}") from error
    return await called
