"""Probes of HTTP servers, and of any server that accepts TCP connections."""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from urllib.parse import unquote, urlsplit

from . import Answer, Cut, ProbeError

MOST_BYTES = 64 * 1024  # the part of a response body that is read


def probe_http(url: str, expected: Sequence[str], timeout: float, cut: Cut) -> Answer:
    """Send a GET request; return the status. Raise ProbeError for an unexpected status. Redirects are not followed."""
    parts = urlsplit(url)
    userinfo, _, place = parts.netloc.rpartition("@")
    connection = _connection(parts.scheme, place, timeout)
    try:
        connection.connect()
        cut.function = partial(_shut, connection.sock)  # saved here: `connection` hands the socket over to the response
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"User-Agent": "schedulerd", "Connection": "close", **_login(userinfo)})
        response = connection.getresponse()
        response.read(MOST_BYTES)
    finally:
        connection.close()
    if not any(re.fullmatch(each.replace("x", "[0-9]"), str(response.status)) for each in expected):
        raise ProbeError(f"it answered {response.status} {response.reason}, expected {' or '.join(expected)}")
    return {"http_status": response.status}


def _connection(scheme: str, place: str, timeout: float) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(place, timeout=timeout, context=ssl.create_default_context())
    return http.client.HTTPConnection(place, timeout=timeout)


def _login(userinfo: str) -> dict[str, str]:
    if not userinfo:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(unquote(userinfo).encode()).decode()}


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def probe_tcp(place: str, timeout: float, _cut: Cut) -> Answer:
    """Connect to HOST:PORT without sending data. Raise OSError."""
    host, _, port = place.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout).close()
    return {}
