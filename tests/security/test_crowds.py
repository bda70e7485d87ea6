"""S14, S6: strangers starve neither door, whatever they hold, say, or do not read."""

import asyncio
import os
import re
import select
import socket
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from types import SimpleNamespace

import pytest

from schedulerd.api.auth import MOST_FAILURES
from schedulerd.api.connections import admission, loop_share
from schedulerd.api.connections import transport as metering
from schedulerd.api.connections.admission import Caller, Rank
from schedulerd.api.connections.guard import REFUSED_BYTES, guarded
from schedulerd.api.connections.limits import ConnectionLimits
from schedulerd.api.server import Server, unix_api
from schedulerd.cli.client import PREFIX
from schedulerd.config.config import ApiSettings
from schedulerd.core.clock import SystemClock
from schedulerd.core.models import Role
from schedulerd.service.roles import needs
from tests.support.daemon import RunningDaemon

NOBODY = 65534
PROXY = "127.0.0.9"
HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
API = {"listen": "127.0.0.1:0", "peers": [{"user": "daemon", "role": "viewer"}], "trusted_proxy": PROXY}
HOLD = """
import socket, sys
held = []
for _ in range(int(sys.argv[2])):
    one = socket.socket(socket.AF_UNIX)
    one.connect(sys.argv[1])
    try:
        one.sendall(sys.argv[3].encode().decode("unicode_escape").encode())
    except OSError:
        pass
    held.append(one)
print(flush=True)
input()
"""
needs_root = pytest.mark.root("only root can be somebody else")


@pytest.fixture(scope="module")
def running():
    with tempfile.TemporaryDirectory(prefix="doors-") as place:  # others can come to it, unlike to pytest's
        os.chmod(place, 0o755)
        many = {f"job-{number}": {"shell": "true"} for number in range(299)}
        made = RunningDaemon(Path(place), {"jobs": {**many, "long": {"shell": "sleep 60"}}, "api": API})
        made.start()
        yield made
        made.close()


@pytest.fixture
def port(running):
    return int(re.search(r"listening on http://127\.0\.0\.1:(\d+)", running.log())[1])


@pytest.fixture
def token(running):
    return (running.folder / "state" / "admin.token").read_text().strip()


@pytest.fixture
def held():
    with ExitStack() as stack:
        yield stack


def connect(held, port, source="127.0.0.1"):
    made = held.enter_context(socket.socket(socket.AF_INET))
    made.settimeout(20)
    made.bind((source, 0))
    made.connect(("127.0.0.1", port))
    return made


def ask(connection, token=None, path=f"{PREFIX}/running", **headers):
    """Return the status of an answer, or 0 when there is none."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    lines += f"Authorization: Bearer {token}\r\n" if token is not None else ""
    try:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        answer = HTTPResponse(connection)
        answer.begin()
        answer.read()
    except (ConnectionError, HTTPException):
        return 0
    return answer.status


@needs_root
@pytest.mark.parametrize("said", ["", "GET / HT", HEALTHZ.decode()], ids=["nothing", "half a head", "a request"])
def test_s14_strangers_on_the_socket_do_not_shut_root_out(running, said):
    count = admission.MOST_CONNECTIONS + 50
    command = ["/usr/bin/python3", "-c", HOLD, str(running.socket_path), str(count), said.encode("unicode_escape").decode()]
    who = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    with subprocess.Popen(command, **who, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as nobody:
        nobody.stdout.readline()
        for _ in range(20):
            assert running.client.get("running") == []
        nobody.communicate(b"\n")
    assert f"uid {NOBODY} has {admission.MOST_STRANGERS_OF_A_PEER} connections without login" in running.log()


@pytest.mark.parametrize("said", [b"", b"GET / HT", HEALTHZ], ids=["nothing", "half a head", "a request"])
def test_s14_strangers_on_tcp_do_not_shut_a_token_out(held, port, token, said):
    for number in range(250):
        stranger = connect(held, port, f"127.0.0.{number % 5 + 1}")
        with suppress(ConnectionError):
            stranger.sendall(said)

    kept = connect(held, port, "127.0.0.6")
    assert [ask(kept, token) for _ in range(3)] == [200] * 3
    for number in range(150):
        connect(held, port, f"127.0.0.{number % 5 + 1}")
    assert ask(kept, token) == 200  # whoever has logged in stays
    assert ask(connect(held, port, "127.0.0.7"), token) == 200


def test_s6_a_good_token_gets_in_while_others_guess_and_no_token_at_all_is_no_guess(held, port, token):
    one = connect(held, port, "127.0.0.8")

    assert [ask(one) for _ in range(12)] == [401] * 12
    assert [ask(one, "x") for _ in range(12)] == [401] * 10 + [429] * 2
    assert ask(one, token) == 200
    assert ask(one) == 401


def test_s14_behind_a_trusted_proxy_each_caller_has_their_own_limits(held, port, token):
    proxy = connect(held, port, PROXY)

    def guess(address):
        return ask(proxy, "x", X_Forwarded_For=f"192.0.2.99, {address}")

    assert [guess("198.51.100.1") for _ in range(11)] == [401] * 10 + [429]
    assert guess("198.51.100.2") == 401
    assert ask(proxy, token, X_Forwarded_For="198.51.100.1") == 200


def test_s14_a_caller_behind_a_proxy_has_so_many_requests_under_way_and_no_more(running, held, port, token):
    fields = f"Authorization: Bearer {token}\r\nX-Forwarded-For: 198.51.100.9\r\nIdempotency-Key: one\r\n"
    head = f"POST {PREFIX}/jobs/long/trigger?wait=30s HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: 0\r\n\r\n"
    waiting = {connect(held, port, PROXY) for _ in range(admission.MOST_OF_A_PEER + 1)}
    for connection in waiting:
        connection.sendall(head.encode())
    (refused,) = select.select(waiting, [], [], 20)[0]
    other = connect(held, port, PROXY)

    assert statuses(refused, 1) == (429,)
    assert ask(other, token, X_Forwarded_For="198.51.100.8") == 200
    running.client.post(f"runs/{running.client.get('running')[0]['run_id']}/cancel")
    assert {statuses(each, 1) for each in waiting - {refused}} == {(200,)}


def test_s14_what_strangers_say_in_pieces_and_at_once_is_answered_whole_and_in_order(held, port):
    body = b'{"reason": "x"}'
    post = f"POST {PREFIX}/jobs/long/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    asked = HEALTHZ + post + body + HEALTHZ.replace(b"/healthz", b"/nothing")
    several = [connect(held, port, f"127.0.0.{number % 3 + 2}") for number in range(45)]
    middle = asked.index(b"eason")
    for connection in several:
        connection.sendall(asked[:middle])
    for connection in several:
        connection.sendall(asked[middle:] + asked)

    assert {statuses(connection, 6) for connection in several} == {(200, 401, 401) * 2}


def statuses(connection, count):
    heard, found = b"", []
    while len(found) < count and (piece := connection.recv(65536)):
        heard += piece
        found = re.findall(rb"HTTP/1\.1 (\d+) ", heard)
    return tuple(map(int, found))


def test_s14_who_is_no_trusted_proxy_cannot_say_who_they_are(held, port):
    liar = connect(held, port, "127.0.0.10")
    heard = [ask(liar, "x", X_Forwarded_For=f"198.51.100.{number}") for number in range(100, 111)]

    assert heard == [401] * 10 + [429]


def test_s6_all_guesses_together_are_bounded(held, port, token):
    proxy = connect(held, port, PROXY)
    heard = [ask(proxy, "x", X_Forwarded_For=f"203.0.113.{number}") for number in range(MOST_FAILURES + 1)]

    assert heard[-1] == 429
    assert ask(proxy, token, X_Forwarded_For="203.0.113.254") == 200


def test_s14_a_large_answer_is_whole(running):
    answer = running.client.get_response("jobs")

    assert len(answer.body) == 300
    assert int(answer.headers["content-length"]) > 64 * 1024
    assert answer.headers["content-type"].startswith("application/json")


class Generous(asyncio.Protocol):
    """Says much to each who says something, all at once."""

    def __init__(self, ends):
        self.ends = ends

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(b"x" * (4 << 20))

    def connection_lost(self, error):
        self.ends.put_nowait(error)


@pytest.mark.parametrize("rank", Rank)
def test_s14_who_takes_no_answer_is_cut_and_who_takes_it_slowly_is_not(tmp_path, monkeypatch, rank):
    monkeypatch.setattr(metering, "STALL_SECONDS", 0.3)

    async def main():
        loop, taken, heard = asyncio.get_running_loop(), 0, 0
        ends = asyncio.Queue()
        limits = ConnectionLimits(lambda _connection: Caller("somebody", rank))
        server = await loop.create_unix_server(guarded(limits, lambda: Generous(ends)), str(tmp_path / "s"))
        with socket.socket(socket.AF_UNIX) as deaf, socket.socket(socket.AF_UNIX) as slow:
            for each in (deaf, slow):
                each.setblocking(False)
                await loop.sock_connect(each, str(tmp_path / "s"))
                await loop.sock_sendall(each, HEALTHZ)
            while taken < 4 << 20:
                taken += len(await asyncio.wait_for(loop.sock_recv(slow, 512 << 10), 5))
                await asyncio.sleep(0.04)
            await asyncio.wait_for(ends.get(), 10)
            while piece := await asyncio.wait_for(loop.sock_recv(deaf, 1 << 20), 5):
                heard += len(piece)
        server.close()
        return taken, heard

    taken, heard = asyncio.run(main())
    assert taken == 4 << 20
    assert heard < 4 << 20


@pytest.mark.filterwarnings("ignore:It is recommended to use web.RequestKey")
def test_s14_a_caller_who_reads_no_list_is_cut_and_one_who_reads_it_slowly_has_it_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(metering, "STALL_SECONDS", 0.3)
    whole = b"[" + b"1," * (2 << 20) + b"1]"
    jobs = SimpleNamespace(list_jobs=needs(Role.VIEWER)(lambda: (whole, '"1"')), notice=needs(Role.VIEWER)(lambda: None))
    service = SimpleNamespace(jobs=jobs, waits_for=lambda: None)
    path = str(tmp_path / "s")

    async def main():
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        server = Server()
        await server.open(listener, unix_api(service, ApiSettings(socket=path), SystemClock()))
        loop, taken, heard = asyncio.get_running_loop(), b"", b""
        with socket.socket(socket.AF_UNIX) as deaf, socket.socket(socket.AF_UNIX) as slow:
            for each in (deaf, slow):
                each.setblocking(False)
                await loop.sock_connect(each, path)
                await loop.sock_sendall(each, f"GET {PREFIX}/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            while not taken.endswith(b"]"):
                piece = await asyncio.wait_for(loop.sock_recv(slow, 256 << 10), 5)
                assert piece, taken[-200:]
                taken += piece
                await asyncio.sleep(0.03)
            await server.stop_listening()
            while piece := await asyncio.wait_for(loop.sock_recv(deaf, 1 << 20), 5):
                heard += piece
        await server.close()
        return taken, heard

    taken, heard = asyncio.run(main())
    assert taken.endswith(b"\r\n\r\n" + whole)
    assert heard.startswith(b"HTTP/1.1 200 ")
    assert len(heard) < len(whole)


def test_s14_s15_who_was_answered_and_sends_on_is_cut_off(held, port):
    connection, piece, sent = connect(held, port), b"a" * 65536, 0
    connection.sendall(
        f"POST {PREFIX}/jobs/job-1/trigger HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n".encode()
    )
    with suppress(ConnectionError):
        while sent < 64 * REFUSED_BYTES:
            connection.sendall(piece)
            sent += len(piece)

    assert sent < 32 * REFUSED_BYTES  # what the kernel keeps is taken, too


def test_s14_what_takes_long_of_strangers_is_spread_over_turns(monkeypatch):
    monkeypatch.setattr(loop_share, "SHARE_SECONDS", -1.0)  # each takes longer than all of them may

    async def done_in_each_turn():
        taken, done = loop_share.LoopShare(), []
        assert [taken.acquire(is_first=True), taken.acquire(is_first=True), taken.acquire(is_first=False)] == [
            True,
            False,
            False,
        ]
        for name in ("a", "b", "c"):
            taken.queue(lambda name=name: done.append(name), is_first=True)
        taken.queue(lambda: done.append("later"), is_first=False)
        seen = []
        for _ in range(4):
            await asyncio.sleep(0)
            seen.append("".join(done))
        return seen

    assert asyncio.run(done_in_each_turn()) == ["alater", "alaterb", "alaterbc", "alaterbc"]


@needs_root
def test_s14_users_without_a_role_who_come_again_and_again_wait_for_nobody_and_nobody_for_them(running):
    storm = (
        "import socket, sys\nfor _ in range(1500):\n    s = socket.socket(1)\n    s.connect(sys.argv[1])\n    s.close()\n"
    )
    subprocess.run(["/usr/bin/python3", "-c", storm, running.socket_path], user=NOBODY, group=NOBODY, check=True)

    assert running.client.get("running") == []
    assert "users without a role connect more than 200 times a second" in running.log()
