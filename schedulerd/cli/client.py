"""A small HTTP client of the API, over the Unix socket or TCP, for `schedulerctl` and for tests."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from ..core.errors import SchedulerdError

PREFIX = "/api/v1/scheduler"
TOKEN_VARIABLE = "SCHEDULERD_TOKEN"  # noqa: S105 - the name of a variable
NOTICE = "schedulerd-notice"  # a header of successful responses: a message for the user
PIECE_BYTES = 64 * 1024
UNAUTHORIZED = 401  # HTTP status


class ClientError(SchedulerdError):
    """The daemon cannot be reached, or it refused a request.

    `status` is the HTTP status of the response, 0 if there was none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Response:
    """A response of the daemon, with its decoded body."""

    status: int
    body: Any
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class ResponseStream:
    """A response whose body is read in pieces while it arrives."""

    status: int
    headers: dict[str, str]
    pieces: Iterator[bytes]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """Sends requests to one daemon, by the path of its socket or by the URL of its REST API with a token."""

    def __init__(
        self, path: str | None = None, url: str | None = None, token: str | None = None, timeout: float | None = None
    ) -> None:
        """`timeout` is in seconds, for connecting and for each read; None waits without limit."""
        self._path = path
        self._url = urlsplit(url) if url else None
        self._token = token
        self._timeout = timeout

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **query: Any) -> Response:
        """Send a request and return the response, whatever its status. Raise ClientError if there is none."""
        sent = self._headers()
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        connection = self._connection()
        try:
            with self._connection_errors():
                connection.request(method, _target(path, query), data, {**sent, **(headers or {})})
                response = connection.getresponse()
                raw = response.read()
        finally:
            connection.close()
        return Response(response.status, _decode(raw), _headers_of(response))

    @contextmanager
    def stream(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> Iterator[ResponseStream]:
        """Lend the response to a GET of `path`. Raise ClientError as `get` does.

        Its `pieces` raise ClientError, with status 0, if the connection ends before the body is complete.
        """
        connection = self._connection()
        try:
            with self._connection_errors():
                connection.request("GET", _target(path, query), headers={**self._headers(), **(headers or {})})
                response = connection.getresponse()
                raw = response.read() if response.status >= 300 else b""
            self._check(Response(response.status, _decode(raw), _headers_of(response)))
            yield ResponseStream(response.status, _headers_of(response), self._pieces(response))
        finally:
            connection.close()

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        left = response.length  # None if the body is sent in chunks
        while True:
            with self._connection_errors():
                data = response.read1(PIECE_BYTES)
                if left and not data:
                    raise http.client.IncompleteRead(b"", left)
            if not data:
                return
            left = None if left is None else left - len(data)
            yield data

    @contextmanager
    def _connection_errors(self) -> Iterator[None]:
        """Turn errors of a connection into ClientError."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            raise ClientError(self._unreachable(error)) from error

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def get(self, what: str, **query: Any) -> Any:
        """Return the body of the response to a GET below /api/v1/scheduler. Raise ClientError if it is no success."""
        return self.get_response(what, **query).body

    def get_response(self, what: str, **query: Any) -> Response:
        """Return the whole response of which `get` returns the body. Raise ClientError as `get` does."""
        return self._check(self.ask("GET", f"{PREFIX}/{what}", **query))

    def post(self, what: str, body: Any = None, headers: dict[str, str] | None = None, **query: Any) -> Response:
        """Return the response to a POST below /api/v1/scheduler. Raise ClientError if it is no success."""
        return self._check(self.ask("POST", f"{PREFIX}/{what}", body, headers, **query))

    def _check(self, response: Response) -> Response:
        """Return a response that is a success and comes from schedulerd. Raise ClientError for any other."""
        body = response.body
        is_json = body is None or isinstance(body, (dict, list))
        if self._url is not None and not is_json:
            raise ClientError(
                f"no schedulerd answers at {self._url.geturl()}: the server there sent HTTP status {response.status}"
                " without JSON"
            )
        if response.status < 300:
            return response
        detail = body.get("detail", f"HTTP status {response.status}") if isinstance(body, dict) else body
        if isinstance(detail, list):
            detail = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in detail)
        if response.status == UNAUTHORIZED and self._url is not None and not self._token:
            detail = f"{detail} (schedulerctl reads it from ${TOKEN_VARIABLE})"
        raise ClientError(str(detail), response.status)

    def _connection(self) -> http.client.HTTPConnection:
        if self._url is None:
            return _UnixConnection(self._path or "", self._timeout)
        host = self._url.hostname or "localhost"
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        return kind(host, self._url.port, timeout=self._timeout)

    def _unreachable(self, error: Exception) -> str:
        if self._url is not None:
            return f"no answer from {self._url.geturl()}: {error}"
        if isinstance(error, PermissionError):
            return f"you may not use the socket {self._path}: ask the administrator to add you to its group, or for a token"
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            text = f"no daemon answers on {self._path}: is schedulerd running?"
            return f"{text} (systemctl status schedulerd; another socket: --socket PATH)"
        if isinstance(error, ConnectionError):
            text = f"the daemon does not start, has ended, or refuses connections: {error} on {self._path}"
            return f"{text} (its log has the reason: systemctl status schedulerd)"
        return f"no answer on {self._path}: {error}"


def job_path(job_id: str, verb: str = "") -> str:
    """Return the path of a job below /api/v1/scheduler."""
    return f"jobs/{quote(job_id, safe='')}" + (f"/{verb}" if verb else "")


def run_path(run_id: str, verb: str = "") -> str:
    """Return the path of a run below /api/v1/scheduler."""
    return f"runs/{quote(run_id, safe='')}" + (f"/{verb}" if verb else "")


def is_run_id(text: str) -> bool:
    """Return whether `text` has the form of the id of a run, a UUID."""
    return re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) is not None


def _target(path: str, query: dict[str, Any]) -> str:
    present = {name: value for name, value in query.items() if value is not None}
    return path + ("?" + urlencode(present) if present else "")


def _headers_of(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _decode(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw.decode("utf-8", "replace")
