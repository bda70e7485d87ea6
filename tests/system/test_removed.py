"""Somebody removes files under a running daemon: no second one gets in, and what can be made again is."""

import shutil
import signal
import subprocess
import sys

from schedulerd.cli.client import Client, ClientError
from tests.support.waiting import until

TICK = {"tick": {"every": "1s", "shell": "true"}}
NAMES = ("lock", "schedulerd.sock", "schedulerd.sock.lock", "history.db.lock")


def beside(daemon, first, **top):
    """Return a second daemon with the state directory of the first."""
    second = daemon(TICK, folder=first.folder.parent / "second")
    second.write({"state_dir": str(first.folder / "state"), "jobs": TICK, **top})
    return second


def answers(running):
    """Return what health says of the scheduler once the socket is there."""

    def asked():
        try:
            return Client(path=str(running.socket_path), timeout=10).get("health")["scheduler"]
        except (ClientError, OSError):
            return None

    return until(asked, "an answer on the socket")


def test_a_second_daemon_is_refused_though_every_lock_file_and_socket_was_removed(daemon):
    first = daemon(TICK).start()
    for name in NAMES:
        (first.folder / "state" / name).unlink()

    second = beside(daemon, first)
    assert second.spawn().wait(10) == 75
    assert f"another schedulerd uses the state directory {first.folder}/state (process {first.process.pid}" in second.log()
    assert "is gone" not in first.log()


def test_a_socket_and_lock_files_that_were_removed_are_made_again(daemon):
    first = daemon(TICK).start()
    for name in NAMES:
        (first.folder / "state" / name).unlink()
    first.signal(signal.SIGHUP)

    assert answers(first)["troubles"] == []
    assert all((first.folder / "state" / name).exists() for name in NAMES)
    for name in NAMES:
        assert first.log().count(f"/state/{name} was removed: recreated") == 1
    assert first.stop() == 0
    assert not first.socket_path.exists()


def test_a_socket_of_another_program_is_left_alone_and_told(daemon):
    first = daemon(TICK).start()
    first.socket_path.unlink()
    (first.folder / "state" / "schedulerd.sock").write_text("precious")
    first.signal(signal.SIGHUP)

    until(lambda: "exists and is not a socket" in first.log(), "a word in the log")
    first.socket_path.unlink()
    first.signal(signal.SIGHUP)
    assert answers(first)["is_well"]


def test_a_state_directory_that_was_removed_lets_no_second_daemon_in_and_is_told(daemon):
    first = daemon({}).start()
    shutil.rmtree(first.folder / "state")

    second = beside(daemon, first)
    assert second.spawn().wait(10) == 75
    first.signal(signal.SIGHUP)
    own = answers(first)
    assert not own["is_well"]
    assert any(f"the state directory {first.folder}/state was removed or replaced" in each for each in own["troubles"])
    assert first.log().count(f"ERROR   the state directory {first.folder}/state was removed") == 1


def test_two_daemons_never_share_the_keepers(daemon):
    first = daemon(TICK).start()
    second = daemon(TICK, folder=first.folder.parent / "second")
    (second.folder / "state").mkdir(0o700)
    (second.folder / "state" / "keeper").symlink_to(first.folder / "state" / "keeper")
    (first.folder / "state" / "keeper" / "lock").unlink()

    assert second.spawn().wait(10) == 75
    assert "another schedulerd uses the keepers" in second.log()


def test_a_history_is_not_migrated_under_a_daemon_whose_lock_files_were_removed(daemon):
    first = daemon(TICK).start()
    for name in NAMES:
        (first.folder / "state" / name).unlink()

    command = [sys.executable, "-m", "schedulerd.cli", "db", "migrate", f"sqlite://{first.folder}/state/history.db"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "another schedulerd uses" in done.stderr
