"""S2, S3, S10, S11, S16: who gets in by which door, what each role may do, and that a request is one request."""

import hashlib
import http.client
import json
import os
import re
import socket
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import http_parser

from schedulerd.api.app import Api, Route
from schedulerd.api.auth import SocketAuthenticator
from schedulerd.api.responses import PREFIX
from schedulerd.api.routes import OPEN_ROUTES, ROUTES
from schedulerd.core.models import Role
from tests.support.daemon import RunningDaemon

OPERATOR, VIEWER, NOBODY = 54321, 54322, 54323
NO_RUN = "00000000-0000-7000-8000-000000000000"
TOKENS = {"viewer": "R" * 43, "operator": "O" * 43, "admin": "A" * 43, "expired": "X" * 43}
LACKING = [None, "", "Bearer", "Bearer ", "Bearer wrong", "Bearer tök", "Bearer \xff", "Basic YTpi", f"Bearer {'X' * 43}"]
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def running():
    with tempfile.TemporaryDirectory() as place:  # pytest's own is closed to others
        folder = Path(place)
        folder.chmod(0o755)
        (folder / "state").mkdir(0o700)
        tokens = [
            {
                "id": name,
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
                "role": name if name != "expired" else "admin",
                "expires_at": "2020-01-01T00:00:00Z" if name == "expired" else None,
            }
            for name, text in TOKENS.items()
        ]
        (folder / "state" / "tokens.json").write_text(json.dumps({"tokens": tokens}))
        (folder / "state" / "tokens.json").chmod(0o600)
        peers = [{"user": str(OPERATOR), "role": "operator"}, {"user": str(VIEWER), "role": "viewer"}]
        api = {"listen": "127.0.0.1:0", "peers": peers, "hosts": ["jobs.example"]}
        made = RunningDaemon(folder, {"jobs": {"good": {"shell": "true", "params": {"p": {}}}}, "api": api})
        made.start()
        yield made
        assert "Traceback" not in made.log()
        made.close()


@pytest.fixture(scope="module")
def port(running):
    return int(re.search(r"listening on http://127\.0\.0\.1:(\d+)", running.log())[1])


class Unix(http.client.HTTPConnection):
    """A connection to the Unix socket, as another user when one is given."""

    def __init__(self, path, uid=None):
        super().__init__("localhost", timeout=20)
        self._path, self._uid = path, uid

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        with _as(self._uid):
            self.sock.connect(self._path)


@contextmanager
def _as(uid):
    if uid is not None:
        os.seteuid(uid)
    try:
        yield
    finally:
        if uid is not None:
            os.seteuid(0)


def asked(connection, method, path, headers=None, body=None):
    connection.request(method, path, body, {name: value.encode() for name, value in (headers or {}).items()})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def path_of(route):
    return re.sub(r"\{\w+\}", NO_RUN, route.path)


def declared(route, role):
    """Return whether an answer is that of a role to a route where nothing is."""
    if role < route.role:
        return {403}
    return {404} if "{" in route.path else {200}


def wrong(connection, role, headers=None):
    """Return the routes that answer a role otherwise than they declare it."""
    found = {route: asked(connection, route.method, path_of(route), headers) for route in ROUTES}
    connection.close()
    return {(route.method, route.path): status for route, status in found.items() if status not in declared(route, role)}


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.ADMIN])
def test_s2_each_route_answers_each_token_as_it_declares(port, role):
    headers = {"Authorization": f"Bearer {TOKENS[role.name.lower()]}"}

    assert wrong(http.client.HTTPConnection("127.0.0.1", port, timeout=20), role, headers) == {}


def test_s2_no_route_answers_who_has_no_good_token(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for given in LACKING:
        headers = {} if given is None else {"Authorization": given}
        targets = [*((route.method, path_of(route)) for route in ROUTES), ("GET", "/nothing"), ("OPTIONS", f"{PREFIX}/jobs")]
        targets += [
            ("GET", f"{PREFIX}/jobs?token={TOKENS['admin']}"),
            ("GET", f"{PREFIX}/jobs?access_token={TOKENS['admin']}"),
        ]
        found = {asked(connection, *target, headers) for target in targets}
        assert found <= {401, 429}, given
    assert {asked(connection, "GET", path) for path in OPEN_ROUTES} == {200}
    connection.close()


@pytest.mark.root("only root can become somebody else")
@pytest.mark.parametrize(("uid", "role"), [(None, Role.ADMIN), (OPERATOR, Role.OPERATOR), (VIEWER, Role.VIEWER)])
def test_s2_each_route_answers_each_user_of_the_socket_as_it_declares_whatever_token_they_show(running, uid, role):
    for given in (None, "Bearer wrong", f"Bearer {TOKENS['admin']}", f"Bearer {TOKENS['viewer']}"):
        headers = {} if given is None else {"Authorization": given}
        assert wrong(Unix(str(running.socket_path), uid), role, headers) == {}


@pytest.mark.root("only root can become somebody else")
def test_s2_no_route_answers_who_has_no_role_on_the_socket(running):
    connection = Unix(str(running.socket_path), NOBODY)
    for given in (None, f"Bearer {TOKENS['admin']}"):
        headers = {} if given is None else {"Authorization": given}
        assert {asked(connection, route.method, path_of(route), headers) for route in ROUTES} == {401}
    connection.close()


def test_s2_a_route_without_a_role_builds_no_application():
    async def handler(_api, _request):
        raise AssertionError

    with pytest.raises(AttributeError, match="role"):
        Api(
            None, SocketAuthenticator(None), None, (*ROUTES, Route("GET", "/open", handler, lambda: None)), OPEN_ROUTES
        ).build()


@pytest.mark.parametrize("role", ["operator", "admin"])
def test_s3_nobody_has_the_daemon_run_what_is_not_defined(running, port, role):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Authorization": f"Bearer {TOKENS[role]}", **JSON}
    keys = ("command", "shell", "env", "env_file", "user", "group", "cwd", "path", "python", "http", "url", "sql", "timeout")
    bodies = [json.dumps(body) for key in keys for body in ({key: "id"}, {"params": {"p": "x", key: "id"}})]
    found = {asked(connection, "POST", f"{PREFIX}/jobs/good/trigger", headers, body) for body in bodies}
    paths = [f"{PREFIX}{path}" for path in ("/jobs", "/runs", "/jobs/good", "/jobs/new", "/config")]
    others = {
        asked(connection, method, path, headers, bodies[0])
        for method in ("POST", "PUT", "PATCH", "DELETE")
        for path in paths
    }
    connection.close()

    assert found == {422}
    assert others <= {404, 405}
    assert running.history("good") == []


def said(port, *lines, body=b""):
    """Say lines on TCP, and return all that is heard."""
    with socket.socket() as connection:
        connection.settimeout(20)
        connection.connect(("127.0.0.1", port))
        connection.sendall(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\r\n" for line in lines) + body)
        heard = b""
        with suppress(ConnectionError):
            while piece := connection.recv(65536):
                heard += piece
    return heard


ADMIN = f"Authorization: Bearer {TOKENS['admin']}"
END = ("Connection: close", "")


@pytest.mark.parametrize("host", ["jobs.example", "jobs.example:80", "LOCALHOST", "127.0.0.1", "[::1]:8080"])
def test_s10_a_name_of_this_daemon_is_answered(port, host):
    assert said(port, f"GET {PREFIX}/jobs HTTP/1.1", f"Host: {host}", ADMIN, *END).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "lines",
    [
        ["Host: evil.example"], ["Host: 127.0.0.1.nip.io"], ["Host: localhost."], ["Host: 127.1"], ["Host: 0.0.0.0"],
        ["Host: 2130706433"], ["Host: localhost@evil.example"], ["Host: localhost:80:80"], ["Host: localhost evil"],
        ["Host: evil.example", "X-Forwarded-Host: localhost"], ["Host:"], [], ["Host: localhost", "Host: localhost"],
        ["Host: localhost", "Host: evil.example"], ["Host: jobs.example.evil.example"],
    ],
)  # fmt: skip
def test_s10_any_other_name_is_421_or_400(port, lines):
    assert re.match(rb"HTTP/1.1 (421|400) ", said(port, f"GET {PREFIX}/jobs HTTP/1.1", *lines, ADMIN, *END))


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None]
)
def test_s11_a_body_of_a_type_that_forms_send_is_415(running, port, kind):
    lines = [f"Content-Type: {kind}"] if kind else []
    answer = said(port, f"POST {PREFIX}/jobs/good/pause HTTP/1.1", "Host: localhost", ADMIN, *lines, "Content-Length: 2",
                  *END, body=b"{}")  # fmt: skip

    assert answer.startswith(b"HTTP/1.1 415 ")
    assert not running.job("good")["is_paused"]


def test_s11_no_page_is_allowed_anything_and_no_cookie_counts(port):
    asking = (
        "Origin: https://evil.example",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: authorization",
    )
    for method in ("OPTIONS", "GET", "POST"):
        answer = said(port, f"{method} {PREFIX}/jobs/good/pause HTTP/1.1", "Host: localhost", ADMIN, *asking, *END).lower()
        assert b"access-control-allow" not in answer
        assert b"set-cookie" not in answer
    answer = said(port, f"GET {PREFIX}/jobs HTTP/1.1", "Host: localhost", f"Cookie: token={TOKENS['admin']}; {ADMIN}", *END)
    assert re.match(rb"HTTP/1.1 (401|429) ", answer)


INNER = f"POST {PREFIX}/jobs/good/pause HTTP/1.1\r\nHost: localhost\r\n{ADMIN}\r\nContent-Length: 0\r\n\r\n".encode()
HEAD = (f"POST {PREFIX}/jobs/good/resume HTTP/1.1", "Host: localhost", ADMIN)
CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 0", CHUNKED], [CHUNKED, "Content-Length: 5"], ["Transfer-Encoding: chunked123"],
        ["Transfer-Encoding: xchunked"], [CHUNKED, "Transfer-Encoding: identity"], ["Transfer-Encoding: identity, chunked"],
        ["Transfer-Encoding : chunked"], ["Transfer-Encoding:", " chunked"], ["Transfer-Encoding: \x0bchunked"],
        ["X: y\nTransfer-Encoding: chunked"], ["Content-Length: 0\nX: y"], ["Content-Length: ٥"], ["Content-Length: 0x5"],
        ["Content-Length: 5, 5"], ["Content-Length: -1"], ["Content-Length: 1_0"],
        ["Content-Length: 0", "Content-Length: 80"],
        ["Content-Length: 0", " folded: yes"], ["Content-Length:", "\t5"], ["Content\x00-Length: 5"],
        ["Content-Length: 5\r"],
        [b"Content-Length: \xb2"], ["Content Length: 5"], [": 5"], ["no colon"],
    ],
)  # fmt: skip
def test_s16_what_two_readers_could_take_for_different_requests_is_refused_and_the_end(running, port, lines):
    answer = said(port, *HEAD, *lines, "", body=INNER)

    assert re.match(rb"HTTP/1.1 400 ", answer)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not running.job("good")["is_paused"]


@pytest.mark.parametrize(
    "body",
    [
        b"0x5\r\n",
        b"5 \r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"5\nhello\r\n",
        "٥\r\nhello\r\n".encode(),
        b"5\r\nhello0\r\n",
        b"-1\r\n",
    ],
)
def test_s16_a_chunk_whose_end_is_in_doubt_is_the_end(running, port, body):
    answer = said(port, *HEAD, CHUNKED, "Content-Type: application/json", "", body=body + b"0\r\n\r\n" + INNER)

    assert answer.count(b"HTTP/1.1 ") <= 1
    assert answer[9:12] in (b"", b"400")
    assert not running.job("good")["is_paused"]


def test_s16_requests_are_read_by_the_parser_in_c():
    assert http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy
