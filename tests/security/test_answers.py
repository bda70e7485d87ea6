"""S12, S18, S26: every class of answer has our headers and our shape, and names no server; one request has one answer."""

import asyncio
import fcntl
import json
import os
import re
import socket
import sys
import termios
from types import SimpleNamespace

import pytest
from aiohttp import web

from schedulerd.api.app import Api, Route
from schedulerd.api.auth import SocketAuthenticator
from schedulerd.api.peer_roles import PeerRoles
from schedulerd.api.server import Server
from schedulerd.cli.client import PREFIX, Client, job_path, run_path
from schedulerd.core.clock import SystemClock
from schedulerd.service.jobs import Jobs
from tests.support.daemon import RunningDaemon
from tests.support.raw_http import heard
from tests.support.waiting import until

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
JOBS = {
    "good": {"shell": "echo hello"},
    "off": {"shell": "true"},
    "big": {"shell": "head -c 3000000 /dev/zero | tr '\\0' x"},
}
PAUSE = f"POST {PREFIX}/jobs/off/pause"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    made = RunningDaemon(tmp_path_factory.mktemp("answers"), {"jobs": JOBS, "api": {"listen": "127.0.0.1:0"}})
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def token(running):
    return (running.folder / "state" / "admin.token").read_text().strip()


@pytest.fixture(params=["socket", "tcp"])
def ask(request, running, token):
    """Return what says something at one of the doors, and returns all that it hears."""
    port = int(re.search(r"listening on http://127\.0\.0\.1:(\d+)", running.log())[1])

    def say(line, *headers, body=b""):
        login = f"Host: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}"
        with socket.socket(socket.AF_UNIX if request.param == "socket" else socket.AF_INET) as connection:
            connection.settimeout(20)
            connection.connect(str(running.socket_path) if request.param == "socket" else ("127.0.0.1", port))
            connection.sendall("\r\n".join((line, *headers, login, "", "")).encode() + body)
            return heard(connection)

    return say


def unread(connection):
    """Return how many bytes wait to be read."""
    return int.from_bytes(fcntl.ioctl(connection, termios.FIONREAD, bytes(4)), sys.byteorder)


def parts(said):
    """Return status, headers and body of the one answer that was heard."""
    assert said.count(b"HTTP/1.") == 1
    head, _, body = said.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}, body


CLASSES = [
    (200, ["GET /healthz HTTP/1.1"]),
    (200, [f"GET {PREFIX}/jobs HTTP/1.1"]),
    (400, ["GET /x y HTTP/1.1"]),
    (400, ["GET / HTTP/9.9.9"]),
    (400, ["G@T / HTTP/1.1"]),
    (404, ["GET /nothing HTTP/1.1"]),
    (404, ["GET /nothing HTTP/1.0"]),
    (405, ["DELETE /healthz HTTP/1.1"]),
    (413, [f"{PAUSE} HTTP/1.1", "Content-Type: application/json", "Content-Length: 70000"]),
    (415, [f"{PAUSE} HTTP/1.1", "Content-Type: text/plain", "Content-Length: 2"]),
    (417, ["GET /healthz HTTP/1.1", "Expect: <b>nothing</b>"]),
    (417, ["GET /nothing HTTP/1.1", "Expect: nothing"]),
    (422, [f"{PAUSE} HTTP/1.1", "Content-Type: application/json", "Content-Length: 2"]),
    (431, ["GET /" + "a" * 9000 + " HTTP/1.1"]),
    (431, ["GET / HTTP/1.1", "X: " + "a" * 9000]),
    (431, ["GET / HTTP/1.1", *["a: b"] * 70]),
]


@pytest.mark.parametrize(("status", "said"), CLASSES)
def test_s12_every_class_of_answer_has_our_headers_and_our_shape(ask, status, said):
    size = next((int(line.split()[1]) for line in said if line.startswith("Content-Length")), 0)
    found, headers, body = parts(ask(*said, body=b"x" * size))

    assert found == status
    assert {name: headers.get(name) for name in HEADERS} == HEADERS
    assert "server" not in headers
    assert headers["content-type"].startswith("application/json")
    assert status == 200 or set(json.loads(body)) == {"detail"}


def test_s12_not_changed_has_our_headers(running):
    tag = running.client.ask("GET", f"{PREFIX}/jobs").headers["etag"]
    found = running.client.ask("GET", f"{PREFIX}/jobs", headers={"If-None-Match": tag})

    assert found.status == 304
    assert {name: found.headers.get(name) for name in HEADERS} == HEADERS


def test_s12_an_address_that_is_none_ends_the_connection_and_costs_no_traceback(ask, running):
    said = ask("GET http://[ HTTP/1.1")

    assert not said or parts(said)[0] == 400
    assert "Traceback" not in running.log()


async def _broken(_api, request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"a part")
    raise {"ours": web.HTTPNotFound(), "none's": OSError("the disk is gone")}[request.query["whose"]]


@pytest.mark.filterwarnings("ignore:It is recommended to use web.RequestKey")
@pytest.mark.parametrize("whose", ["ours", "none's"])
def test_s12_an_error_in_the_middle_of_an_answer_ends_the_connection_and_is_no_second_answer(tmp_path, whose):
    routes = (Route("GET", "/broken", _broken, Jobs.list_jobs),)

    async def main():
        server, listener = Server(), socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "socket"))
        listener.setblocking(False)
        authenticator = SocketAuthenticator(PeerRoles("schedulerd", (), SystemClock()))
        await server.open(listener, Api(SimpleNamespace(waits_for=lambda: None), authenticator, None, routes, {}))
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "socket"))
        one = f"GET /broken?whose={whose} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        writer.write(one * 2)
        said = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        await server.close()
        return said

    said = asyncio.run(main())
    assert said.count(b"HTTP/1.1") == 1
    assert said.endswith(b"6\r\na part\r\n")  # and no last chunk: it is not whole


@pytest.mark.parametrize("query", ["limit=3000000", "follow=true"])
def test_s18_a_caller_who_goes_away_in_the_middle_of_an_answer_is_no_error_of_ours(running, query):
    run_id = running.client.post(job_path("big", "trigger")).body["result"]["run_id"]
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(running.socket_path))
            path = f"{PREFIX}/{run_path(run_id, 'output')}?{query}"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            until(lambda connection=connection: unread(connection) > 100_000, "more than is taken")
        assert running.client.ask("GET", "/healthz").status == 200

    assert "ERROR" not in running.log()


def _link(path):
    path.symlink_to("/etc/hostname")


def _socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _day(path):
    path.parent.rename(path.parent.with_name("away"))
    path.parent.symlink_to("/etc")


@pytest.mark.parametrize(
    ("put", "words"),
    [
        (os.mkdir, "a folder is in its place"),
        (_link, "a link is in its place"),
        (os.mkfifo, "a FIFO is in its place"),
        (_socket, "a socket is in its place"),
        (_day, "a link is in place of its day's folder"),
        (None, "was removed"),
    ],
)
def test_s26_what_is_in_place_of_an_output_is_told_and_neither_read_nor_followed(running, tmp_path, monkeypatch, put, words):
    run_id = running.client.post(job_path("good", "trigger")).body["result"]["run_id"]
    (path,) = (running.folder / "state" / "output").glob(f"*/{run_id}.log")
    day = path.parent
    path.unlink()
    if put:
        monkeypatch.chdir(day)
        put(path.relative_to(day) if put is _socket else path)
    try:
        asked = ({}, {"follow": "true"}, {"offset": "2"})
        answers = [running.client.ask("GET", f"{PREFIX}/{run_path(run_id, 'output')}", **query) for query in asked]
        shown = running.client.get(run_path(run_id))
    finally:
        if day.is_symlink():
            day.unlink()
            day.with_name("away").rename(day)

    assert [answer.status for answer in answers] == [410] * 3
    assert all(words in answer.body["detail"] for answer in answers)
    assert (shown["output_removed"], shown["output_bytes"]) == (True, 0)
    assert "Traceback" not in running.log()


def test_s26_who_follows_an_output_that_is_replaced_hears_its_end_and_the_run_has_it(daemon, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    running = daemon({"j": {"shell": f"echo begun; read line < {tmp_path}/fifo; echo $line"}}).start()
    run_id = running.client.post(job_path("j", "trigger"), wait="false").body["run_id"]
    with running.client.stream(f"{PREFIX}/{run_path(run_id, 'output')}", follow="true", marks="true") as streamed:
        pieces = iter(streamed.pieces)
        assert next(pieces) == b"begun\n"
        (path,) = (running.folder / "state" / "output").glob(f"*/{run_id}.log")
        path.rename(path.with_name("aside"))
        _link(path)
        assert b"".join(pieces) == b"\n[schedulerd: the output of the run was removed]\n"
    (tmp_path / "fifo").write_text("go\n")
    (row,) = running.until_run("j", "success")

    assert row["details"]["output_error"] == "its output was replaced while it was running: a link is in its place"
    assert Client(path=str(running.socket_path)).ask("GET", f"{PREFIX}/{run_path(run_id, 'output')}").status == 410
    assert "Traceback" not in running.log()
