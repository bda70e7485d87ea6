"""S30: what a job writes is text for a terminal, and never its master."""

import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

HOSTILE = r"printf '\033]0;owned\007\033[2J\033[31mred\n'"


@pytest.fixture
def ran(daemon):
    """A daemon with a job that has written escape sequences."""
    running = daemon({"hostile": {"shell": HOSTILE}}).start()
    running.client.post("jobs/hostile/trigger")
    return running


def on_terminal(running, *words):
    """Return what schedulerctl writes to a terminal."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "schedulerd.cli", "--socket", str(running.socket_path), *words]
    subprocess.run(command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, check=True)
    os.close(slave)
    seen = b""
    with suppress(OSError):  # EIO is the end of it
        while True:
            seen += os.read(master, 4096)
    os.close(master)
    return seen


@pytest.mark.parametrize("words", [("logs", "hostile"), ("logs", "-f", "hostile"), ("logs", "-n", "5", "hostile"),
                                   ("run", "-f", "hostile")])  # fmt: skip
def test_escape_sequences_of_a_job_are_shown_on_a_terminal(ran, words):
    seen = on_terminal(ran, *words)

    assert b"^[]0;owned^G^[[2J^[[31mred" in seen
    assert b"\x1b]0;" not in seen
    assert b"\x1b[2J" not in seen


def test_colours_are_kept_when_they_are_asked_for(ran):
    seen = on_terminal(ran, "logs", "--color", "hostile")

    assert b"^[]0;owned^G^[[2J\x1b[31mred" in seen


def test_raw_is_the_way_out(ran):
    assert b"\x1b]0;owned\x07" in on_terminal(ran, "logs", "--raw", "hostile")


def test_a_pipe_gets_the_bytes_as_they_are(ran):
    command = [sys.executable, "-m", "schedulerd.cli", "--socket", str(ran.socket_path), "logs", "hostile"]

    assert subprocess.run(command, capture_output=True, check=True).stdout == b"\x1b]0;owned\x07\x1b[2J\x1b[31mred\n"
