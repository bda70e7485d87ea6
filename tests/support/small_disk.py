"""A daemon whose history is on a small disk, which a test fills; each such test has a mount namespace of its own."""

import importlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from schedulerd.cli.client import Client, ClientError
from tests.support.daemon import RunningDaemon
from tests.support.witness import Verdict, Witness

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounting a small disk needs root and unshare"
)
INSIDE = "SCHEDULERD_TEST_ON_SMALL_DISK"


def on_disk_of(size: str) -> Callable[[Callable[[Path], None]], Callable[..., None]]:
    """Run the body of a test in a process that alone sees a small disk, at `disk` in its folder."""

    def inside(test: Callable[[Path], None]) -> Callable[..., None]:
        def call(tmp_path: Path) -> None:
            (tmp_path / "disk").mkdir()
            python = f"{sys.executable} -m tests.support.small_disk {test.__module__} {test.__name__} {tmp_path}"
            script = f"mount -t tmpfs -o size={size} tmpfs {tmp_path}/disk && exec {python}"
            done = subprocess.run(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, check=False, env={**os.environ, INSIDE: "1"})  # fmt: skip
            print(done.stdout)
            assert done.returncode == 0, done.stdout

        if INSIDE in os.environ:
            return test
        call.__name__, call.__doc__ = test.__name__, test.__doc__
        return call

    return inside


class SmallDisk:
    """A daemon with its history, or with everything, on the small disk."""

    def __init__(self, folder: Path, with_state: bool = False, jobs: int = 6) -> None:
        self.disk = folder / "disk"
        self.witness = Witness(folder / "said", jobs)
        top: dict[str, Any] = {"store": f"sqlite://{self.disk}/history.db"}
        if with_state:
            top |= {"state_dir": str(self.disk / "state"), "outage_journal": "1M"}
        self.daemon = RunningDaemon(folder, {"jobs": self.witness.jobs(), **top})
        if with_state:
            self.daemon.client = Client(path=str(self.disk / "state" / "schedulerd.sock"), timeout=60)
        self.daemon.start()

    def fill(self) -> None:
        """Take the last byte."""
        fill(self.disk)

    def free(self) -> None:
        """Give the room back."""
        (self.disk / "filler").unlink(missing_ok=True)

    def own(self) -> dict[str, Any] | None:
        """Return what health says of the scheduler, None while it says nothing."""
        try:
            return self.daemon.client.get("health")["scheduler"]
        except ClientError:
            return None

    def check(self) -> Verdict:
        """End, and compare the history with what the jobs say."""
        self.daemon.stop()
        verdict = self.witness.verdict(statuses(self.disk / "history.db"))
        assert (verdict.wrong, verdict.rows_without_a_run) == ([], [])
        return verdict


def fill(disk: Path) -> None:
    """Take the last byte of a disk; what is reserved stays with its owner."""
    with open(disk / "filler", "ab", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


def statuses(path: Path) -> dict[str, str]:
    """Return the status of each run of a SQLite history, which must be whole."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return dict(connection.execute("SELECT run_id, status FROM runs"))
    finally:
        connection.close()


if __name__ == "__main__":
    module, name, place = sys.argv[1:]
    getattr(importlib.import_module(module), name)(Path(place))
