"""S27: a request of ours goes to the host of the configuration alone, in bounded time, and takes a bounded answer."""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from schedulerd.actions.probes import Cut, ProbeError
from schedulerd.actions.probes.network import probe_http

OK = b"HTTP/1.1 200 OK\r\n"


class Server:
    """Answers each connection with a text, and then says `again` until nobody listens."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.answer, self.again = OK + b"Content-Length: 2\r\n\r\nok", b""
        self.heard = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        with suppress(OSError):  # it is closed
            while True:
                with self._socket.accept()[0] as connection, suppress(OSError):
                    self.heard.append(connection.recv(65536))
                    connection.sendall(self.answer)
                    while self.again:
                        connection.sendall(self.again)

    def close(self):
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def other():
    made = Server()
    yield made
    made.close()


def asked(url, tmp_path, **options):
    """Return the exit status of the program that makes the request, what it has written, and what it says of its run."""
    told = tmp_path / "result"
    told.unlink(missing_ok=True)
    order = {"url": url, "method": "GET", "headers": {"Authorization": "Bearer CANARY"}, "body": None, "is_json": False,
             "expect_status": ["2xx"], "expect_text": None, "expect_json": None, "verify": True, "follow_redirects": True,
             "timeout": 20, "hidden": ["CANARY"], **options}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "schedulerd.actions.programs.http_request"],
        input=json.dumps(order).encode(), capture_output=True, check=False,
        env={**os.environ, "SCHEDULERD_RESULT_FILE": str(told)},
    )  # fmt: skip
    return done.returncode, done.stdout, json.loads(told.read_text())["message"]


ELSEWHERE = ["//127.0.0.1:{other}/", "http://localhost:{other}/", "http://127.0.0.1:{own}@127.0.0.1:{other}/",
             "https://127.0.0.1:{own}/", "file:///etc/passwd"]  # fmt: skip


def test_s27_no_redirect_leads_to_another_host_port_or_scheme(server, other, tmp_path):
    for place in ELSEWHERE:
        there = place.format(own=server.port, other=other.port)
        server.answer = f"HTTP/1.1 302 Found\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n".encode()
        status, _, message = asked(f"http://127.0.0.1:{server.port}/", tmp_path)

        assert (status, message) == (1, "answered 302 Found, to another host: only redirects to the same one are followed")
    assert other.heard == []


def test_s27_redirects_to_itself_end(server, tmp_path):
    server.answer = b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"

    assert asked(f"http://127.0.0.1:{server.port}/", tmp_path)[2] == "more than 5 redirects"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/", "gopher://h/", "/etc/passwd", "http://"])
def test_s27_nothing_but_http_is_asked(url, tmp_path):
    assert asked(url, tmp_path)[2] == "the URL is not an http:// or https:// URL"


ENDLESS = {
    "a body": (OK + b"\r\n", b"x" * 65536, None),
    "a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n", b"x" * 65536, None),
    "a status line": (b"HTTP/1.1 200 ", b"x" * 65536, "LineTooLong"),
    "a header": (OK + b"A: ", b"x" * 65536, "LineTooLong"),
    "headers": (OK, b"A: b\r\n" * 1000, "HTTPException"),
    "the size of a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1" * 65536, "LineTooLong"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_s27_of_an_endless_answer_one_megabyte_is_taken(server, tmp_path, what):
    server.answer, server.again, error = ENDLESS[what]
    status, output, message = asked(f"http://127.0.0.1:{server.port}/", tmp_path)

    assert status == (1 if error else 0)
    assert error is None or message == f"the request failed: {error}"
    assert len(output) < 1_100_000


@pytest.mark.parametrize(
    "begin", [b"", OK, OK + b"Content-Length: 99\r\n\r\nx"], ids=["silence", "half a head", "half a body"]
)
def test_s27_an_answer_that_does_not_come_is_not_awaited(tmp_path, begin):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: held.append(listener.accept()[0]) or held[0].sendall(begin))
        held = []
        thread.start()
        told = asked(f"http://127.0.0.1:{listener.getsockname()[1]}/", tmp_path, timeout=0.5)
        thread.join()
        held[0].close()

    assert told == (1, b"", "no answer within 0.5 s")


def test_s27_an_answer_that_ends_early_is_no_success(server, tmp_path):
    server.answer = OK + b"Content-Length: 99\r\n\r\nall is well"

    assert asked(f"http://127.0.0.1:{server.port}/", tmp_path, expect_text="well")[2] == "the request failed: IncompleteRead"


def test_s27_a_compressed_answer_is_not_unpacked(server, tmp_path):
    server.answer = OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"

    assert asked(f"http://127.0.0.1:{server.port}/", tmp_path)[1].endswith("\x1f\ufffd\x08\0\n".encode())


def test_s27_a_health_check_follows_no_redirect(server, other):
    server.answer = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{other.port}/\r\nContent-Length: 0\r\n\r\n".encode()

    with pytest.raises(ProbeError, match="it answered 302 Found"):
        probe_http(f"http://127.0.0.1:{server.port}/", ["2xx"], 5, Cut())
    assert other.heard == []
