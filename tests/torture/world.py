"""A daemon with its disk, clock and history, and what can be done to them. It is started again as systemd would."""

from __future__ import annotations

import os
import resource
import select
import signal
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from schedulerd.cli.client import Client
from tests.support.daemon import RunningDaemon, keepers
from tests.support.iofault import IoFault
from tests.support.servers import PostgresServer
from tests.support.shims import shim
from tests.support.wallclock import WallClock
from tests.torture.books import Books, read_books
from tests.torture.judge import Case
from tests.torture.ledger import Row, read_postgres, read_sqlite
from tests.torture.work import Work

BOOT_FILE = "SCHEDULERD_TORTURE_BOOT_ID"  # what is mounted over the kernel's boot id
DISK = "48m"
JOURNAL = "4M"
PATIENCE = 0.5  # before a daemon that has ended is started again


@dataclass
class Event:
    """Something that was done, at a time of CLOCK_BOOTTIME."""

    at: float
    words: str


def boottime() -> float:
    """Return the clock of the books."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class World:
    """One daemon in one folder. `postgres` is the server of its history, if it is in one."""

    def __init__(
        self,
        folder: Path,
        jobs: Mapping[str, Work],
        program: Path,
        postgres: PostgresServer | None = None,
        is_on_disk: bool = False,
        root: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder, self.jobs, self.program, self.postgres = folder, jobs, program, postgres
        self.books = folder / "books"
        self.books.mkdir()
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.is_on_disk = is_on_disk
        if is_on_disk:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(self.disk)], check=True)
        self.state = self.disk / "var"
        self.schema = f"torture_{uuid.uuid4().hex[:12]}"
        self.events: list[Event] = []
        self.case = Case(jobs, 0.0, 0.0)
        self.clock = WallClock(folder, datetime.now(UTC))
        self.step_to(0.0)
        self.io = IoFault(folder)
        env = {**(env or {}), **self.clock.env, **self.io.env, "LD_PRELOAD": f"{shim('wallshift')} {shim('iofault')}"}
        self.daemon = RunningDaemon(folder, self.config(), env, root)
        self.daemon.client = Client(path=str(self.state / "schedulerd.sock"), timeout=10)
        self.up_at = 0.0
        self.is_ended = False
        self.exits: list[int] = []
        self.is_ready = False
        self._frozen: set[int] = set()
        self._unwritten_since: float | None = None
        self._has_postgres = True

    # Its configuration

    def config(self, note: str = "") -> dict[str, Any]:
        """Return the configuration; `note` changes jobs without changing what they do."""
        jobs = {
            job_id: work.config(self.program, self.books, self.folder / "wallshift")
            | ({"description": note} if note else {})
            for job_id, work in self.jobs.items()
        }
        store = {"store": self.postgres.url, "store_schema": self.schema} if self.postgres is not None else {}
        return {
            "state_dir": str(self.state), "outage_journal": JOURNAL, "catch_up_spread": "2s", "shutdown_grace": "20s",
            "timezone": "UTC", **store, "jobs": jobs,
        }  # fmt: skip

    def write(self, config: dict[str, Any] | str) -> None:
        """Put another configuration, or any text, in the place of the one that is there, at once."""
        fresh = self.folder / "config.new"
        fresh.write_text(config if isinstance(config, str) else yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False))
        fresh.chmod(0o600)
        fresh.rename(self.daemon.config_path)

    # Its life

    def start(self) -> None:
        """Start it, and judge what is due from when it is ready."""
        self.daemon.start()
        self.is_ready = True
        self.case.since = self.wall() + 1.0

    def tend(self) -> None:
        """Hear what it says, and start it when it has ended and it is time."""
        self._drain()
        process = self.daemon.process
        if self.is_ended or process is None:
            return
        if process.poll() is not None and self.up_at == 0.0:
            self.exits += [process.returncode] if process.returncode else []
            self.note(f"the daemon ended with {process.returncode}")
            self.up_at = time.monotonic() + PATIENCE
        if self.up_at and process.poll() is not None and time.monotonic() >= self.up_at:
            self.up_at = 0.0
            self.note("the daemon is started")
            self.is_ready = False
            self.daemon.spawn()

    def _drain(self) -> None:
        notify = self.daemon.notify
        while select.select([notify], [], [], 0)[0]:
            self.is_ready |= "READY=1" in notify.recv(4096).decode()

    def wall(self) -> float:
        """Return what the daemon's clock says."""
        return self.clock.now().timestamp()

    def note(self, words: str) -> None:
        """Write down what happens."""
        self.events.append(Event(boottime(), words))

    @property
    def pid(self) -> int | None:
        """Return its process id while it runs."""
        process = self.daemon.process
        return process.pid if process is not None and process.poll() is None else None

    def keepers(self) -> list[int]:
        """Return the process ids of its keepers."""
        return keepers(self.state)

    def kill_daemon(self, down: float) -> None:
        """kill -9; it is started again after `down` seconds."""
        self.up_at = time.monotonic() + down
        if self.pid is not None:
            self.daemon.kill()

    def restart_daemon(self) -> None:
        """SIGTERM; it is started again when it has ended."""
        if self.pid is not None:
            self.daemon.signal(signal.SIGTERM)

    def kill_keepers(self, which: slice = slice(None)) -> None:
        """kill -9 of keepers."""
        before = boottime()
        for pid in self.keepers()[which]:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.case.losses.append((before, boottime()))

    def crash(self, down: float) -> None:
        """Let everything of the host die at once, and give it another boot id."""
        self.up_at = time.monotonic() + down
        self.case.crashes.append(boottime())
        if self.pid is not None:
            self.daemon.process.send_signal(signal.SIGSTOP)  # nothing of it hears of the others' end
        for pid in self.keepers():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for pid in self.marks():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if self.pid is not None:
            self.daemon.kill()
        self.case.crashes.append(boottime())
        self.case.losses.append((self.case.crashes[-2], self.case.crashes[-1]))
        if BOOT_FILE in os.environ:
            Path(os.environ[BOOT_FILE]).write_text(f"{uuid.uuid4()}\n")

    def marks(self) -> list[int]:
        """Return the processes of jobs."""
        found, own = [], str(self.books).encode()
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                line = Path(f"/proc/{name}/cmdline").read_bytes()
                if own in line and line.startswith(bytes(self.program)):
                    found.append(int(name))
        return found

    def freeze(self, pids: list[int]) -> None:
        """SIGSTOP."""
        for pid in pids:
            with suppress(OSError):
                os.kill(pid, signal.SIGSTOP)
                self._frozen.add(pid)

    def thaw(self) -> None:
        """SIGCONT of all that were frozen."""
        for pid in self._frozen:
            with suppress(OSError):
                os.kill(pid, signal.SIGCONT)
        self._frozen.clear()

    # Its clock

    def step_to(self, shift: float) -> None:
        """Set its clock `shift` seconds before the true one."""
        path = self.folder / "wallshift"
        (before,) = struct.unpack("q", path.read_bytes())
        if shift * 1e9 < before:
            self.case.steps.append((boottime(), self.wall()))
        self.clock.step(shift - before / 1e9)

    # Its disk

    def fill(self) -> None:
        """Take the last byte of its disk."""
        with open(self.disk / "filler", "ab", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(4096))

    def free(self) -> None:
        """Give the room back."""
        (self.disk / "filler").unlink(missing_ok=True)

    def unwritten(self) -> None:
        """Note that keepers may not be able to write down ends: until they can, their death loses them."""
        self._unwritten_since = self._unwritten_since or boottime()

    def written(self) -> None:
        """Note that they can again."""
        if self._unwritten_since is not None:
            since, until = self._unwritten_since, boottime() + 1.0
            self.case.losses = [
                (min(first, since) if since <= last <= until else first, last) for first, last in self.case.losses
            ]
            self._unwritten_since = None

    # Its server

    def stop_postgres(self, is_killed: bool) -> None:
        """Let PostgreSQL die."""
        if self.postgres is not None and self._has_postgres:
            self._has_postgres = False
            self.silence_postgres(False)
            (self.postgres.kill if is_killed else self.postgres.stop)()

    def start_postgres(self) -> None:
        """Let it be there again."""
        if self.postgres is not None and not self._has_postgres:
            self.postgres.start()
            self._has_postgres = True

    def silence_postgres(self, is_silent: bool) -> None:
        """Freeze it, or let it go on."""
        if self.postgres is not None and self._has_postgres:
            self.postgres.freeze(is_silent)

    # Its descriptors

    def limit(self, spare: int) -> None:
        """Leave the daemon and its keepers only so many descriptors more than they have."""
        for pid in filter(None, [self.pid, *self.keepers()]):
            with suppress(OSError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                used = len(os.listdir(f"/proc/{pid}/fd"))
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(hard, used + spare), hard))

    def unlimit(self) -> None:
        """Give them all they may have."""
        for pid in filter(None, [self.pid, *self.keepers()]):
            with suppress(OSError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))

    # Its end

    def read(self) -> tuple[Books, list[Row]]:
        """Return what the jobs and the history say."""
        books = read_books(self.books)  # first: a row is there before its start
        if self.postgres is not None:
            return books, read_postgres(self.postgres.url, self.schema)
        return books, read_sqlite(self.state / "history.db")

    def stop(self) -> None:
        """Let it end in peace; what runs and what is due may end before."""
        self.is_ended = True
        drain = threading.Thread(target=self._drain_until_end)
        drain.start()
        if self.pid is not None:
            self.daemon.signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.exits.append(self.daemon.wait(40))
                if self.exits[-1] == 0:
                    self.exits.pop()
        drain.join()

    def _drain_until_end(self) -> None:
        give_up = time.monotonic() + 40
        while self.pid is not None and time.monotonic() < give_up:
            select.select([self.daemon.notify], [], [], 0.1)
            self._drain()

    def close(self) -> None:
        """Leave nothing running, and no disk."""
        self.is_ended = True
        self.thaw()
        self.daemon.close()
        for pid in self.keepers() + self.marks():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if self.postgres is not None:
            with suppress(Exception):
                self.postgres.ask(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")
        if self.is_on_disk:
            subprocess.run(["umount", "-l", str(self.disk)], check=False)
