"""Targets that answer HTTP, or only take a TCP connection."""

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

MOST_BYTES = 64 * 1024  # of an answer that are read


def probe_http(url: str, expected: Sequence[str], timeout: float, cut: Cut) -> Answer:
    """Return the status of an answer to GET. Raise ProbeError when it is none of those expected; a redirect is an answer."""
    parts = urlsplit(url)
    userinfo, _, place = parts.netloc.rpartition("@")
    connection = _connection(parts.scheme, place, timeout)
    try:
        connection.connect()
        cut.function = partial(_shut, connection.sock)  # kept: `connection` gives it to the answer
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
    """Connect to HOST:PORT, and say no word. Raise OSError."""
    host, _, port = place.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout).close()
    return {}
