"""The lock on a path holds when its files are removed, and a stranger cannot keep a daemon out."""

import os
import subprocess
import sys
from contextlib import closing

import pytest

from schedulerd.core.errors import AlreadyRunningError
from schedulerd.host.locks import PathLock, address_of, check_name, is_same_file, lock_file
from schedulerd.host.unix_sockets import drain, hold, holder_of

needs_root = pytest.mark.root("becoming another user needs root")


@pytest.fixture
def place(tmp_path):
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def locked(place, folder=True):
    return closing(PathLock(str(place), str(place / "lock"), "the state", is_folder=folder))


def test_a_lock_holds_when_its_file_is_removed(place):
    with locked(place):
        (place / "lock").unlink()

        with pytest.raises(AlreadyRunningError, match=rf"uses the state \(process {os.getpid()} holds it"), locked(place):
            pass
        with pytest.raises(AlreadyRunningError):
            check_name(str(place), "the state")
    with locked(place):
        pass
    check_name(str(place), "the state")


def test_a_lock_holds_when_its_folder_is_removed(place):
    with locked(place):
        (place / "lock").unlink()
        place.rmdir()
        place.mkdir()

        with pytest.raises(AlreadyRunningError), locked(place):
            pass


def test_a_folder_is_locked_under_whatever_path(place, tmp_path):
    with locked(place):
        (place / "lock").unlink()
        (tmp_path / "other").mkdir()
        moved = place.rename(tmp_path / "other" / "name")

        with pytest.raises(AlreadyRunningError, match="it has locked the folder"), locked(moved):
            pass


def test_removed_files_are_recreated_and_a_removed_folder_is_reported(place):
    with locked(place) as lock:
        assert lock.restore() is None
        (place / "lock").unlink()
        assert lock.restore() is None
        with pytest.raises(AlreadyRunningError):
            lock_file(str(place / "lock"), "the state")

        (place / "lock").unlink()
        place.rmdir()
        assert "the state was removed or replaced" in lock.restore()
        assert "the state was removed or replaced" in lock.restore()
        with pytest.raises(AlreadyRunningError):
            lock_file(str(place / "lock"), "the state")


def test_a_file_replaced_before_it_is_locked_is_not_the_lock(place, monkeypatch):
    flock, path = sys.modules["fcntl"].flock, place / "lock"

    def replacing(descriptor, how):
        path.unlink()
        path.touch()
        monkeypatch.setattr("fcntl.flock", flock)
        flock(descriptor, how)

    monkeypatch.setattr("fcntl.flock", replacing)
    descriptor = lock_file(str(path), "the state")

    assert is_same_file(str(path), descriptor)
    os.close(descriptor)


def test_the_holder_of_a_name_is_found_however_many_ask(place):
    with locked(place) as lock:
        for _ in range(300):
            lock.restore()
            with pytest.raises(AlreadyRunningError):
                check_name(str(place), "the state")


@needs_root
def test_another_user_who_holds_the_name_does_not_prevent_a_start(place, caplog):
    address = address_of(str(place))
    code = "import socket, sys; s = socket.socket(1); s.bind('\\0' + sys.argv[1]); s.listen(); print(flush=True); input()"
    command = ["/usr/bin/python3", "-c", code, address[1:]]
    with subprocess.Popen(command, user=65534, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
        stranger.stdout.readline()
        assert hold(address) is None
        assert holder_of(address, {0}) == 0
        with locked(place):
            assert "the state is protected by its lock file only: a process of another user holds the address" in caplog.text
        stranger.communicate(b"\n")


def test_the_holder_of_a_name_is_found_again_after_a_full_backlog_is_drained(place):
    address = address_of(str(place))
    with closing(hold(address)) as held:
        held.listen(0)
        assert holder_of(address, {os.geteuid()}) == os.getpid()
        assert holder_of(address, {os.geteuid()}) == 0  # which keeps nobody out
        drain(held)
        assert holder_of(address, {os.geteuid()}) == os.getpid()
