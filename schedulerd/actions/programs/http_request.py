"""Program of the action `http`: sends one HTTP request and compares the response with the expected one.

The status line and at most 1 MB of the body are written to standard output. Secrets of the order are masked there and in
the result of the run.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import sys
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from ...secrets.forms import forms_of
from ...secrets.masking import masked_output
from . import fail, order, report

MOST = 1024 * 1024  # bytes of a body
MOST_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
DEFAULT_PORTS = {"http": 80, "https": 443}


class HttpResponse:
    """The status and the body of a response, of which at most `MOST` bytes are read."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.reason = " ".join(f"{response.status} {response.reason}".split())
        self.location = response.getheader("Location")
        data = response.read(MOST + 1)
        self.is_cut = len(data) > MOST
        if response.length and not self.is_cut:  # read(n) does not detect a truncated response
            raise http.client.IncompleteRead(b"", response.length)
        self.text = data[:MOST].decode("utf-8", "replace")


def main() -> None:
    """Send the request and report the result."""
    given = order()
    watch = threading.Timer(given["timeout"] or 0, _too_late, [given["timeout"]])
    watch.daemon = True
    if given["timeout"]:
        watch.start()
    try:
        answer = _asked(given)
    except Exception as error:  # of any type: the texts of some contain the URL or a header
        if isinstance(error, TimeoutError) and error.errno is None:  # the timeout of the socket expired before the timer
            _too_late(given["timeout"])
        fail(_hidden(_error_text(error), given))
    watch.cancel()
    sys.stdout.write(_hidden(f"{answer.reason}\n\n{answer.text}", given) + "\n")
    if answer.is_cut:
        sys.stdout.write("… (the answer is longer than 1 MB)\n")
    wrong = _wrong(answer, given)
    details = {"status": answer.status}
    if wrong:
        fail(_hidden(wrong, given), details=details)
    sys.stdout.flush()
    report(message=_hidden(answer.reason, given), details=details)


def _too_late(seconds: float) -> None:
    fail(f"no answer within {seconds:g} s")


def _error_text(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate was not accepted: {error.verify_message}"
    if isinstance(error, OSError):
        return f"the request failed: {error.strerror or str(error) or type(error).__name__}"
    return f"the request failed: {type(error).__name__}"


def _hidden(text: str, given: Mapping[str, Any]) -> str:
    """Return a text in which the secrets of the order are masked, in all their encoded forms."""
    return masked_output(text.encode("utf-8", "replace"), forms_of(given["hidden"])).decode("utf-8", "replace")


def _asked(given: Mapping[str, Any]) -> HttpResponse:
    """Return the response, after any allowed redirects."""
    url, method, body = urlsplit(given["url"]), given["method"], given["body"]
    for _ in range(MOST_REDIRECTS + 1):
        answer = _request(url, method, body, given)
        if not given["follow_redirects"] or answer.status not in REDIRECTS or not answer.location:
            return answer
        there = urlsplit(urljoin(url.geturl(), answer.location))
        if not _is_same_place(url, there):
            fail(f"answered {answer.reason}, to another host: only redirects to the same one are followed")
        if answer.status in (301, 302, 303) and method not in ("GET", "HEAD"):
            method, body = "GET", None
        url = there
    return fail(f"more than {MOST_REDIRECTS} redirects")


def _is_same_place(old: SplitResult, new: SplitResult) -> bool:
    if new.scheme not in DEFAULT_PORTS or new.hostname != old.hostname:
        return False
    is_upgrade = (_port(old), _port(new)) == (80, 443) and new.scheme == "https"
    return is_upgrade or (old.scheme == new.scheme and _port(old) == _port(new))


def _port(url: SplitResult) -> int:
    return url.port or DEFAULT_PORTS[url.scheme]


def _request(url: SplitResult, method: str, body: str | None, given: Mapping[str, Any]) -> HttpResponse:
    connection = _connection(url, given)
    headers = {"User-Agent": "schedulerd", **given["headers"]}
    names = {name.lower() for name in headers}
    if url.username is not None and "authorization" not in names:
        user = f"{unquote(url.username)}:{unquote(url.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    if body is not None and given["is_json"] and "content-type" not in names:
        headers["Content-Type"] = "application/json"
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    connection.request(method, target, None if body is None else body.encode(), headers)
    try:
        return HttpResponse(connection.getresponse())
    finally:
        connection.close()


def _connection(url: SplitResult, given: Mapping[str, Any]) -> http.client.HTTPConnection:
    if url.scheme not in DEFAULT_PORTS or not url.hostname:
        fail("the URL is not an http:// or https:// URL")
    if url.scheme == "http":
        return http.client.HTTPConnection(url.hostname, _port(url), timeout=given["timeout"])
    verify = given["verify"]
    context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(url.hostname, _port(url), timeout=given["timeout"], context=context)


def _wrong(answer: HttpResponse, given: Mapping[str, Any]) -> str | None:
    """Return how a response differs from the expected one; None when it does not."""
    code = str(answer.status)
    if not any(code == each or (each.endswith("xx") and each[0] == code[0]) for each in given["expect_status"]):
        return f"answered {answer.reason}, not {' or '.join(given['expect_status'])}"
    if given["expect_text"] is not None and given["expect_text"] not in answer.text:
        what = "the first 1 MB of the answer does" if answer.is_cut else "the answer does"
        return f"{what} not contain {given['expect_text']!r}"
    if given["expect_json"] is None:
        return None
    try:
        value = json.loads(answer.text)
    except (ValueError, RecursionError):
        return "the answer is longer than 1 MB: it was not read as JSON" if answer.is_cut else "the answer is not JSON"
    return _difference(given["expect_json"], value, "the answer")


def _difference(expected: Any, found: Any, where: str) -> str | None:
    if not isinstance(expected, dict):
        is_same = found == expected and isinstance(found, bool) == isinstance(expected, bool)
        return None if is_same else f"{where} is {json.dumps(found)[:200]}, not {json.dumps(expected)[:200]}"
    if not isinstance(found, dict):
        return f"{where} is no mapping"
    for key, each in expected.items():
        place = f"{where}.{key}" if where != "the answer" else f"{key} in the answer"
        if key not in found:
            return f"the answer has no {key}" if where == "the answer" else f"{where} has no {key}"
        wrong = _difference(each, found[key], place)
        if wrong:
            return wrong
    return None


if __name__ == "__main__":
    main()
