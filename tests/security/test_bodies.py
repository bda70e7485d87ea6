"""S15: a body is at most 64 KiB, is never decompressed, and comes in at most 1,024 pieces, on either door."""

import gzip
import json
import re
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.daemon import RunningDaemon

KIB = 1024
PATH = "/api/v1/scheduler/jobs/good"
JOB = {"shell": "true", "params": {"what": {"default": "x"}}}
BOMB = gzip.compress(b" " * 50_000_000)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bodies")
    made = RunningDaemon(folder, {"jobs": {"good": JOB}, "api": {"listen": "127.0.0.1:0"}})
    made.start()
    yield made
    made.close()


@pytest.fixture(params=["socket", "tcp"])
def post(request, running):
    """Return what posts a body through one of the doors, and returns the status and the body of the answer."""
    port = int(re.search(r"listening on http://127\.0\.0\.1:(\d+)", running.log())[1])
    token = (running.folder / "state" / "admin.token").read_text().strip()

    def to(body, *fields, verb="trigger?wait=false"):
        whole = (f"POST {PATH}/{verb} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}",
                 "Content-Type: application/json", "Connection: close", *fields, "", "")  # fmt: skip
        with socket.socket(socket.AF_UNIX if request.param == "socket" else socket.AF_INET) as connection:
            connection.settimeout(20)
            connection.connect(str(running.socket_path) if request.param == "socket" else ("127.0.0.1", port))
            said = b""
            with suppress(ConnectionError):
                connection.sendall("\r\n".join(whole).encode() + body)
            with suppress(ConnectionError):
                while piece := connection.recv(65536):
                    said += piece
        head, _, told = said.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), json.loads(told)

    return to


def sized(size):
    return b'{"params": {"what": "y"}}'.ljust(size)


def chunked(body, size):
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def test_s15_a_body_of_nearly_64_kib_is_taken_and_a_longer_one_is_not(post):
    assert post(sized(64 * KIB - 1), f"Content-Length: {64 * KIB - 1}")[0] in (200, 202)
    assert post(sized(64 * KIB + 1), f"Content-Length: {64 * KIB + 1}")[0] == 413
    assert post(chunked(sized(64 * KIB - 1), 4096), "Transfer-Encoding: chunked")[0] in (200, 202)
    assert post(chunked(sized(64 * KIB + 1), 4096), "Transfer-Encoding: chunked")[0] == 413


@pytest.mark.parametrize(
    "coding", [["gzip"], ["GZIP"], ["deflate"], ["br"], ["zstd"], ["identity, gzip"], ["identity", "gzip"]]
)
@pytest.mark.parametrize("verb", ["trigger", "pause", "resume"])
def test_s15_a_compressed_body_is_415_and_never_decompressed(post, running, coding, verb):
    fields = [f"Content-Encoding: {each}" for each in coding]
    before = peak(running)

    status, told = post(BOMB, *fields, f"Content-Length: {len(BOMB)}", verb=verb)

    assert (status, told) == (415, {"detail": "a compressed body is not taken"})
    assert peak(running) - before < 20 * KIB * KIB


def peak(running):
    """Return the most bytes of memory that the daemon has had."""
    text = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) * KIB


def test_s15_100_000_chunks_of_one_byte_are_refused(post, running):
    rows = len(running.history("good", limit=100))

    status, told = post(chunked(b" " * 100_000, 1), "Transfer-Encoding: chunked")

    assert (status, told) == (413, {"detail": "the body has more than 1024 chunks"})
    assert len(running.history("good", limit=100)) == rows


@pytest.mark.parametrize(
    "body",
    [b"[" * 60_000, b'{"params":' * 6_000,
     b'{"params": {"what": ' + b"9" * 60_000 + b"}}", b'{"params": {"what": 1e999999}}',
     b'{"params": {"what": NaN}}', b'{"params": {"what": "\\ud800"}}', b"\xff\xfe", b"\0"],
    ids=["deep lists", "deep mappings", "a long number", "infinity", "no number", "half a pair", "no UTF-8", "NUL"],
)  # fmt: skip
def test_s15_a_body_that_costs_a_parser_dear_is_422(post, body):
    assert post(body, f"Content-Length: {len(body)}")[0] == 422
