"""The API from outside: a small HTTP client over the Unix socket or TCP, for `schedulerctl` and for tests."""

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
NOTICE = "schedulerd-notice"  # a header of good answers: what people are to be told
PIECE_BYTES = 64 * 1024


class ClientError(SchedulerdError):
    """The daemon cannot be reached, or refused; `status` is its HTTP status, 0 when there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon answered."""

    status: int
    body: Any
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer whose body is read as it comes."""

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
    """One daemon, named by its socket's path or by the URL of its REST API with a token."""

    def __init__(
        self, path: str | None = None, url: str | None = None, token: str | None = None, timeout: float | None = None
    ) -> None:
        """`timeout` is in seconds, for connecting and for each answer; None waits."""
        self._path = path
        self._url = urlsplit(url) if url else None
        self._token = token
        self._timeout = timeout

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **query: Any) -> Answer:
        """Return the answer, whatever its status. Raise ClientError when there is none."""
        sent = self._headers()
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        connection = self._connection()
        try:
            with self._answering():
                connection.request(method, _target(path, query), data, {**sent, **(headers or {})})
                response = connection.getresponse()
                raw = response.read()
        finally:
            connection.close()
        return Answer(response.status, _decoded(raw), _named(response))

    @contextmanager
    def stream(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> Iterator[Streamed]:
        """Lend the answer to a GET of `path`, whose body is read as it comes. Raise ClientError as `get` does.

        Its `pieces` raise ClientError, with status 0, when the connection ends before the body does.
        """
        connection = self._connection()
        try:
            with self._answering():
                connection.request("GET", _target(path, query), headers={**self._headers(), **(headers or {})})
                response = connection.getresponse()
                raw = response.read() if response.status >= 300 else b""
            self._good(Answer(response.status, _decoded(raw), _named(response)))
            yield Streamed(response.status, _named(response), self._pieces(response))
        finally:
            connection.close()

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        left = response.length  # None when the body comes in chunks
        while True:
            with self._answering():
                data = response.read1(PIECE_BYTES)
                if left and not data:
                    raise http.client.IncompleteRead(b"", left)
            if not data:
                return
            left = None if left is None else left - len(data)
            yield data

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn what goes wrong with a connection into a ClientError."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            raise ClientError(self._unreachable(error)) from error

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def get(self, what: str, **query: Any) -> Any:
        """Return the body of a GET below /api/v1/scheduler. Raise ClientError for any other status than 200."""
        return self.answer(what, **query).body

    def answer(self, what: str, **query: Any) -> Answer:
        """Return the whole answer that `get` takes the body of. Raise ClientError as it does."""
        return self._good(self.ask("GET", f"{PREFIX}/{what}", **query))

    def post(self, what: str, body: Any = None, headers: dict[str, str] | None = None, **query: Any) -> Answer:
        """Return the answer to a POST below /api/v1/scheduler. Raise ClientError when it is no success."""
        return self._good(self.ask("POST", f"{PREFIX}/{what}", body, headers, **query))

    def _good(self, answer: Answer) -> Answer:
        """Return an answer that is a success, and that a schedulerd gave. Raise ClientError for any other."""
        body = answer.body
        is_ours = body is None or isinstance(body, (dict, list))
        if self._url is not None and not is_ours:
            text = (
                f"no schedulerd answers at {self._url.geturl()}: what is there says HTTP status {answer.status}, and no JSON"
            )
            raise ClientError(text)
        if answer.status < 300:
            return answer
        detail = body.get("detail", f"HTTP status {answer.status}") if isinstance(body, dict) else body
        if isinstance(detail, list):
            detail = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in detail)
        if answer.status == 401 and self._url is not None and not self._token:
            detail = f"{detail} (schedulerctl takes it from SCHEDULERD_TOKEN)"
        raise ClientError(str(detail), answer.status)

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
            return f"you may not use the socket {self._path}: ask its owner for the group of the socket, or for a token"
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            text = f"no daemon answers on {self._path}: is schedulerd running?"
            return f"{text} (systemctl status schedulerd; another socket: --socket PATH)"
        if isinstance(error, ConnectionError):
            said = f"the daemon does not come up, went away, or refuses connections: {error} on {self._path}"
            return f"{said} (its log says why: systemctl status schedulerd)"
        return f"no answer on {self._path}: {error}"


def job_path(job_id: str, verb: str = "") -> str:
    """Return the path of a job below /api/v1/scheduler."""
    return f"jobs/{quote(job_id, safe='')}" + (f"/{verb}" if verb else "")


def run_path(run_id: str, verb: str = "") -> str:
    """Return the path of a run below /api/v1/scheduler."""
    return f"runs/{quote(run_id, safe='')}" + (f"/{verb}" if verb else "")


def is_run_id(text: str) -> bool:
    """Return whether a text is the id of a run, and not that of a job."""
    return re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) is not None


def _target(path: str, query: dict[str, Any]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return path + ("?" + urlencode(given) if given else "")


def _named(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw.decode("utf-8", "replace")
