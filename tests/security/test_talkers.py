"""S27, P51: who has taken the port of a server that is watched fills no memory of the daemon, and holds no probe."""

import socket
import threading
from contextlib import suppress

import pytest

from tests.support.waiting import until

PIECE = b"a" * 65536
MOST_SENT = 32 * 1024 * 1024  # what the kernel keeps between the two, and much less than what fills a host
LOGGED_IN = b"R\0\0\0\x08\0\0\0\0"
NOTICE = b"N\0\0\0\x05\0"
TALKS = {  # a beginning, and what comes after it without end
    "redis_text": ("redis", b"$1000000000\r\n", PIECE),
    "redis_line": ("redis", b"+", PIECE),
    "postgresql_login": ("postgresql", b"NE\x3f\xff\xff\xff", PIECE),
    "redis_drip": ("redis", b"+", b"a"),
    "postgresql_drip": ("postgresql", b"N" + LOGGED_IN, NOTICE),
}


class Talker:
    """A server that says one piece after the other until nobody listens; `sent` is how many bytes were taken."""

    def __init__(self, beginning, piece):
        self.beginning, self.piece, self.sent = beginning, piece, 0
        self.is_over, self.has_gone = threading.Event(), threading.Event()
        self.door = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self.door.getsockname()[1]}"
        self.thread = threading.Thread(target=self.talk)
        self.thread.start()

    def talk(self):
        with suppress(OSError), self.door.accept()[0] as line:
            line.recv(1024)
            line.sendall(self.beginning)
            while self.sent < 10 * MOST_SENT and not self.is_over.wait(0 if self.piece is PIECE else 0.05):
                line.sendall(self.piece)
                self.sent += len(self.piece)
            return
        self.has_gone.set()

    def close(self):
        self.is_over.set()
        socket.socket.shutdown(self.door, socket.SHUT_RDWR)
        self.thread.join()
        self.door.close()


@pytest.fixture
def talkers():
    made = {name: Talker(beginning, piece) for name, (_, beginning, piece) in TALKS.items()}
    yield made
    for each in made.values():
        each.close()


def test_s27_who_talks_without_end_is_hung_up_on(daemon, talkers):
    urls = {"redis": "redis://{}/0", "postgresql": "postgresql://u@{}/d?sslmode=prefer"}
    targets = {
        name: {kind: urls[kind].format(talkers[name].place), "timeout": "0.7s"} for name, (kind, _, _) in TALKS.items()
    }  # fmt: skip
    running = daemon({"health": {"health_check": {"targets": targets}}}).start()
    found = running.client.post("jobs/health/trigger").body["result"]["details"]["services"]

    assert {found[name]["status"] for name in TALKS} == {"unhealthy"}
    until(lambda: all(each.has_gone.is_set() for each in talkers.values()), "an end of all that is said")
    assert {name: each.sent for name, each in talkers.items() if each.sent > MOST_SENT} == {}
