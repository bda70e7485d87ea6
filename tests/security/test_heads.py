"""S15: nothing that a stranger says before login is unbounded, on either door."""

import asyncio
import json
import os
import re
import select
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from schedulerd.api.connections import guard
from schedulerd.api.connections.guard import guarded
from schedulerd.api.connections.limits import ConnectionLimits
from tests.support.daemon import RunningDaemon
from tests.support.raw_http import heard

CONNECTIONS = int(os.environ.get("SCHEDULERD_TEST_FLOODS", "20"))
MEGABYTE = 1 << 20
PATH = "/api/v1/scheduler/jobs"
CHUNKED = f"POST {PATH}/good/trigger HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
ENDLESS = {
    "headers": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"a:b\r\n"),
    "a header": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nA: ", b"b"),
    "a path": (b"GET /", b"b"),
    "trailers": (CHUNKED + b"0\r\n", b"a:b\r\n"),
    "a trailer": (CHUNKED + b"0\r\na: ", b"b"),
    "an extension": (CHUNKED + b"1;a=", b"b"),
    "chunks": (CHUNKED, b"1\r\nb\r\n"),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    made = RunningDaemon(
        tmp_path_factory.mktemp("heads"), {"jobs": {"good": {"shell": "true"}}, "api": {"listen": "127.0.0.1:0"}}
    )
    made.start()
    yield made
    made.close()


@pytest.fixture(params=["socket", "tcp"])
def connect(request, running):
    """Return what opens a connection to one of the doors."""
    port = int(re.search(r"listening on http://127\.0\.0\.1:(\d+)", running.log())[1])

    opened = []

    def to() -> socket.socket:
        made = socket.socket(socket.AF_UNIX if request.param == "socket" else socket.AF_INET)
        made.settimeout(20)
        made.connect(str(running.socket_path) if request.param == "socket" else ("127.0.0.1", port))
        opened.append(made)
        return made

    yield to
    for each in opened:
        each.close()


def flooded(connection, begin, part, most=8 * MEGABYTE, *, is_deaf=False):
    """Say `part` again and again until something is heard (or, deaf, nobody listens), and return all that is heard."""
    with suppress(OSError):
        connection.sendall(begin)
        block = part * (65536 // len(part))
        for _ in range(most // len(block)):
            connection.sendall(block)
            if not is_deaf and select.select([connection], [], [], 0)[0]:
                break
    return heard(connection)


def ask(connection, said):
    connection.sendall(said)
    return heard(connection)


def resident(running):
    """Return the bytes of memory that the daemon has."""
    text = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024


def with_headers(count):
    lines = "".join(f"H{number}: x\r\n" for number in range(count - 2))
    return f"GET /healthz HTTP/1.1\r\nHost: localhost\r\n{lines}Connection: close\r\n\r\n".encode()


@pytest.mark.parametrize("what", ["headers", "a header", "a path"])
def test_s15_an_endless_head_is_431_and_the_end(connect, what):
    said = flooded(connect(), *ENDLESS[what])

    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert b"X-Content-Type-Options: nosniff" in head
    assert b"Server:" not in head
    assert "the head of the request" in json.loads(body)["detail"]


@pytest.mark.parametrize("what", ["trailers", "a trailer", "an extension", "chunks"])
def test_s15_an_endless_frame_of_a_body_is_refused_and_the_end(running, connect, what):
    said = flooded(connect(), *ENDLESS[what], is_deaf=True)

    assert said.count(b"HTTP/1.1 ") <= 1
    assert said[:13] in (b"", b"HTTP/1.1 431 ", b"HTTP/1.1 413 ", b"HTTP/1.1 401 ")
    assert running.history("good") == []


@pytest.mark.parametrize("what", ENDLESS)
def test_s15_many_floods_cost_little_memory(running, connect, what):
    before = resident(running)
    begin, part = ENDLESS[what]
    held = [connect() for _ in range(CONNECTIONS)]
    for each in held:
        flooded(each, begin, part, 4 * MEGABYTE, is_deaf=True)

    assert resident(running) - before < 20 * MEGABYTE


def test_s15_many_heads_that_are_nearly_whole_cost_little_memory(running, connect):
    before = resident(running)
    held = [connect() for _ in range(CONNECTIONS)]
    for each in held:
        each.sendall(b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 63 + b"B: " + b"c" * 60_000)
    ask(connect(), with_headers(3))

    assert resident(running) - before < 20 * MEGABYTE


def test_s15_64_headers_are_taken_and_65_are_not(connect):
    assert ask(connect(), with_headers(64)).startswith(b"HTTP/1.1 200 ")
    assert ask(connect(), with_headers(65)).startswith(b"HTTP/1.1 431 ")


def test_s15_requests_one_after_the_other_at_once_are_answered_in_order(connect):
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    other = b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
    said = ask(connect(), one * 20 + other + one + with_headers(64))

    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [b"200"] * 20 + [b"405"] + [b"200"] * 2


@pytest.mark.parametrize("size", [1, 7, 100])
def test_s15_a_request_may_come_in_any_pieces(connect, size):
    connection = connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    said = CHUNKED.replace(b"good/trigger", b"none/trigger") + b"2;a=b\r\n{}\r\n0\r\na: b\r\n\r\n" + with_headers(3)
    for at in range(0, len(said), size):
        connection.sendall(said[at : at + size])

    assert re.findall(rb"HTTP/1.1 (\d+)", heard(connection))[-1:] == [b"200"]


@pytest.mark.parametrize("connect", ["socket"], indirect=True)
def test_s15_an_offer_of_another_protocol_is_passed_over(connect):
    offer = "Connection: Upgrade\r\nUpgrade: h2c\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Type: application/json"
    said = f"POST {PATH}/good/resume HTTP/1.1\r\n{offer}\r\n\r\n{{}}".encode()

    assert re.findall(rb"HTTP/1.1 (\d+)", ask(connect(), said * 2 + with_headers(3))) == [b"200"] * 3


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\nHost: localhost\nContent-Length: 5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n Content-Length: 5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length : 5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"CONNECT / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        CHUNKED + b"0x1\r\n",
        CHUNKED + b"1\r\nab\r\n",
        CHUNKED + b"1\na\r\n",
        CHUNKED + b"0\r\nContent-Length: 5\r\n",
    ],
)
def test_s15_what_may_be_read_in_two_ways_is_the_end(connect, said):
    connection = connect()
    connection.sendall(said)
    answer = heard(connection)

    assert answer.count(b"HTTP/1.1 ") <= 1
    assert not answer or answer[9:12] in (b"400", b"401")


class Silent(asyncio.Protocol):
    """Takes all and says nothing."""


@pytest.mark.parametrize("begin", [b"GET / HT", CHUNKED, CHUNKED + b"0\r\na: "], ids=["head", "body", "trailer"])
def test_s15_what_trickles_is_cut(tmp_path, monkeypatch, begin):
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.3)

    async def main():
        server = await asyncio.get_running_loop().create_unix_server(
            guarded(ConnectionLimits(), Silent), str(tmp_path / "s")
        )
        _reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(begin)
        with suppress(ConnectionError):
            for _ in range(200):
                writer.write(b"1")
                await asyncio.sleep(0.01)
                if writer.transport.is_closing():
                    break
        assert writer.transport.is_closing()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        server.close()

    asyncio.run(main())


def test_s15_a_slow_handler_is_not_cut_by_the_time_of_its_body(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.1)

    async def main():
        server = await asyncio.get_running_loop().create_unix_server(
            guarded(ConnectionLimits(), Silent), str(tmp_path / "s")
        )
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(CHUNKED + b"1\r\na\r\n")
        writer.write(b"0\r\n\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.4)
        writer.close()
        server.close()

    asyncio.run(main())
