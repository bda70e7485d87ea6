"""A socket that systemd holds for the daemon (sd_listen_fds(3)): no request is lost over a restart."""

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest

from schedulerd.cli.client import Client, ClientError
from tests.support.daemon import RunningDaemon
from tests.support.waiting import until

TICK = {"tick": {"shell": "true", "overlap": "allow"}, "long": {"shell": "sleep 60; true", "kill_grace": 1}}
LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "schedulerd.socket"}
os.execv(sys.executable, [sys.executable, "-m", "schedulerd", "--config", sys.argv[2]])
"""


class HeldDaemon(RunningDaemon):
    """A daemon that is given its socket, as by schedulerd.socket."""

    listener: socket.socket

    def spawn(self):
        env = {**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify")}
        number = self.listener.fileno()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, str(number), str(self.config_path)],
                stderr=log, stdout=log, env=env, cwd=Path(__file__).parents[2], pass_fds=[number],
            )  # fmt: skip
        return self.process


def listening(family, address):
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(512)
    return listener


@pytest.fixture
def held(tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    with (
        closing(HeldDaemon(tmp_path, {"on_stop": "leave", "jobs": TICK})) as daemon,
        closing(listening(socket.AF_UNIX, str(tmp_path / "state" / "schedulerd.sock"))) as daemon.listener,
    ):
        yield daemon


class Callers:
    """Threads that trigger a job over and over, each time on a connection of its own."""

    def __init__(self, path, number):
        self.answers, self.wrong = 0, []
        self._path = str(path)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(number)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self):
        while not self._stop.is_set():
            try:
                answer = Client(path=self._path, timeout=60).ask("POST", "/api/v1/scheduler/jobs/tick/trigger")
                if answer.status not in (200, 202):  # 202: it runs on, and the next daemon sees its end
                    self.wrong.append((answer.status, answer.body))
            except Exception as error:
                self.wrong.append(repr(error))
            self.answers += 1


def test_no_request_is_lost_over_restarts(held):
    held.start()
    with Callers(held.socket_path, 4) as callers:
        for _ in range(5):
            before = callers.answers
            while callers.answers < before + 20:
                assert not callers.wrong
                threading.Event().wait(0.01)
            assert held.stop() == 0
            held.start()

    assert not callers.wrong
    assert callers.answers > 100
    until(lambda: not held.client.get("running"), "the end of all runs")
    stats = held.client.get("stats")
    assert stats["successful_runs"] == callers.answers


def test_the_socket_stays_and_who_calls_meanwhile_is_answered_by_the_next_daemon(held):
    held.start()
    held.stop()
    assert held.socket_path.exists()
    answers = []
    caller = threading.Thread(target=lambda: answers.append(held.client.get("jobs")))
    caller.start()
    held.start()
    caller.join()

    assert {job["job_id"] for job in answers[0]} == {"tick", "long"}


def answers(held):
    with suppress(ClientError):  # it is there a moment before it is answered
        return held.client.ask("GET", "/healthz").status == 200


def test_a_held_socket_that_was_removed_is_made_again_also_by_the_next_daemon(held):
    held.start()
    held.socket_path.unlink()
    held.signal(signal.SIGHUP)
    held.wait_for("READY=1")
    until(lambda: answers(held), "an answer")
    assert held.stop() == 0
    assert not held.socket_path.exists()

    held.start()
    assert held.client.ask("GET", "/healthz").status == 200
    assert held.log().count(f"the socket {held.socket_path} was removed: recreated") == 2


def test_a_child_gets_nothing_of_the_socket(held):
    held.write({"jobs": {"look": {"shell": "env | grep -c LISTEN_; ls /proc/self/fd | wc -l"}}})
    held.start()
    held.client.post("jobs/look/trigger")
    out = next(held.folder.glob("state/output/*/*.log"))

    assert out.read_text().split() == ["0", "4"]  # 0 to 2, and the folder that ls reads


def test_a_socket_for_the_network_is_refused(held):
    held.listener.close()
    held.listener = listening(socket.AF_INET, ("127.0.0.1", 0))
    with held.listener:
        held.spawn()

        assert held.wait() == 78
    assert "set api.listen for TCP" in held.log()


def test_a_socket_of_another_name_is_answered_beside_that_of_the_configuration(held):
    held.write({"api": {"socket": "other.sock"}, "jobs": TICK})
    held.start()

    assert held.client.get("jobs") == Client(path=str(held.folder / "other.sock")).get("jobs")
    assert "listening on both" in held.log()


def test_after_sigusr1_a_stop_ends_what_runs_although_it_would_be_left(held):
    held.write({"on_stop": "leave", "shutdown_grace": 0, "jobs": TICK})
    held.start()
    held.client.post("jobs/long/trigger", wait="false")
    held.until_run("long", "running")
    held.signal(signal.SIGUSR1)
    held.stop()
    held.start()

    assert held.until_run("long")[0]["status"] == "cancelled"


def test_who_waits_for_a_daemon_that_cannot_start_is_told_and_the_socket_stays(held):
    held.write({"jobs": {"wrong": {}}})
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with caller:
        caller.settimeout(60)
        caller.connect(str(held.socket_path))
        caller.sendall(b"GET /api/v1/scheduler/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        held.spawn()
        answer = b"".join(iter(lambda: caller.recv(4096), b""))

    assert held.wait() == 2
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(
        b'{"detail":"schedulerd cannot start as it is configured: see its log (journalctl -u schedulerd)"}'
    )
    held.write({"jobs": TICK})
    held.start()
    assert len(held.client.get("jobs")) == 2
