"""A real schedulerd in a process of its own, in a temporary folder, told when it is ready through a real NOTIFY_SOCKET."""

import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from schedulerd.cli.client import Client
from tests.support.forkserver import FORK_SERVER, ForkedProcess, suits
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


def keepers(folder: Path) -> list[int]:
    """Return the process ids of the keepers of a state directory."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if f"{folder}/keeper/".encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                found.append(int(name))
    return found


class RunningDaemon:
    """Starts `schedulerd`; `client` speaks with it over its Unix socket."""

    def __init__(
        self, folder: Path, config: dict[str, Any], env: dict[str, str] | None = None, root: Path | None = None
    ) -> None:
        """`root` is where the package `schedulerd` is, if it is not this one."""
        self.folder = folder
        self.root = root or ROOT
        self.config_path = folder / "config.yaml"
        self.socket_path = folder / "state" / "schedulerd.sock"
        self.log_path = folder / "daemon.log"
        self.client = Client(path=str(self.socket_path), timeout=60)
        self._env = env or {}
        self.prefix: list[str] = []  # a command that starts another one, like prlimit(1)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self.write(config)

    def write(self, config: dict[str, Any]) -> None:
        """Replace the configuration file."""
        self.config_path.write_text(yaml.safe_dump({"state_dir": "state", **config}, sort_keys=False))
        self.config_path.chmod(0o600)

    def start(self) -> "RunningDaemon":
        """Start, and return when it is ready."""
        self.spawn()
        self.wait_for("READY=1")
        return self

    def spawn(self, stderr: int | None = None) -> "subprocess.Popen[bytes] | ForkedProcess":
        """Start without waiting. The log goes to a file, or to the descriptor `stderr`."""
        while select.select([self.notify], [], [], 0)[0]:
            self.notify.recv(4096)  # what an earlier one said
        env = {**os.environ, **self._env, "NOTIFY_SOCKET": str(self.folder / "notify")}
        words = ["--config", str(self.config_path)]
        with self.log_path.open("ab") as log:
            errors = log.fileno() if stderr is None else stderr
            if self.root == ROOT and not self.prefix and suits(env):
                self.process = FORK_SERVER.start(words, env, ROOT, log.fileno(), errors)
            else:
                self.process = subprocess.Popen(
                    [*self.prefix, sys.executable, "-m", "schedulerd", *words],
                    stderr=errors, stdout=log, env=env, cwd=self.root,
                )  # fmt: skip
        return self.process

    def wait_for(self, word: str, seconds: float = 200.0) -> None:
        """Return when the daemon has told systemd `word`; fail when it ends first, or after `seconds`."""
        for _ in range(int(seconds * 5)):
            ready, _, _ = select.select([self.notify], [], [], 0.2)
            if ready and word in self.notify.recv(4096).decode():
                return
            if not ready and self.process is not None and self.process.poll() is not None:
                break
        raise AssertionError(f"the daemon did not say {word}: {self.log()}")

    def reload(self, config: dict[str, Any] | str) -> None:
        """Write a configuration (or any text), send SIGHUP, and return when it was dealt with."""
        if isinstance(config, str):
            self.config_path.write_text(config)
        else:
            self.write(config)
        self.signal(signal.SIGHUP)
        self.wait_for("READY=1")

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, seconds: float = 30) -> int:
        """Send SIGTERM and return the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float = 30) -> int:
        """Return the exit status."""
        assert self.process is not None
        return self.process.wait(seconds)

    def log(self) -> str:
        """Return what the daemon wrote to stderr."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    def close(self) -> None:
        """Leave nothing running."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.notify.close()
        for keeper in keepers(self.folder / "state"):  # what it had left running, too
            with suppress(OSError):
                for child in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split():
                    os.killpg(int(child), signal.SIGKILL)
                os.kill(keeper, signal.SIGKILL)
        (self.folder / "state" / "outage.journal").unlink(missing_ok=True)  # 64 MB; pytest keeps three sessions

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job as the API shows it."""
        return self.client.get(f"jobs/{job_id}")

    def history(self, job_id: str, **query: Any) -> list[dict[str, Any]]:
        """Return a job's history."""
        return self.client.get(f"jobs/{job_id}/history", **query)

    def until_run(self, job_id: str, status: str | None = None, count: int = 1) -> list[dict[str, Any]]:
        """Return the history once it has `count` rows of that status."""
        return until(
            lambda: (rows := self.history(job_id, limit=100, status=status)) and len(rows) >= count and rows,
            f"{count} runs of {job_id} with status {status}",
        )
