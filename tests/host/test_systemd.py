"""What is told to the service manager, through a real socket that nobody may read."""

import socket

import pytest

from schedulerd.core.clock import SystemClock
from schedulerd.host.systemd import Notifier


@pytest.fixture
def manager(tmp_path, monkeypatch):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "notify"))
    listener.settimeout(10)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield listener
    listener.close()


@pytest.fixture
def notifier(manager):
    made = Notifier(SystemClock())
    yield made
    made._notifier.socket.close()


def heard(manager):
    """Take all that waits in the socket."""
    manager.setblocking(False)
    words = []
    try:
        while True:
            words.append(manager.recv(4096).decode())
    except BlockingIOError:
        return words


def test_a_service_manager_that_hangs_is_notified_later(manager, notifier):
    for number in range(1000):  # far more than the kernel keeps for a reader
        notifier.starting(f"try {number}")
    notifier.reloading()
    notifier.ready("5 jobs")
    assert "READY=1" not in "".join(heard(manager))
    notifier.resend_pending()

    assert heard(manager) == ["READY=1\nSTATUS=5 jobs"]  # and not that it reloads, which is over
    notifier.resend_pending()
    assert heard(manager) == []


def test_a_service_manager_that_is_gone_is_no_error(manager, notifier):
    manager.close()

    notifier.ready("5 jobs")
    notifier.resend_pending()
