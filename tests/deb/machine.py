"""A Debian root that is booted with its own systemd, in a container without a network, and told what to do from outside."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

SECONDS = 120
HIERARCHIES = [path for path in map(Path, ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")) if path.is_dir()]
HIERARCHIES = HIERARCHIES or [Path("/sys/fs/cgroup")]
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}


class NotBootedError(Exception):
    """The container did not come up."""


class Machine:
    """A copy of a root, in `folder`; `boot` and `power_off` as often as wanted, what is on its disk stays."""

    def __init__(self, original: Path, folder: Path) -> None:
        self.root = folder / "root"
        self.log = folder / "console.log"
        self._name = f"schedulerd-test-{os.getpid()}"
        self._leader = 0
        self._container: subprocess.Popen[bytes] | None = None
        subprocess.run(["cp", "-a", "--reflink=auto", str(original), str(self.root)], check=True)

    def boot(self) -> None:
        """Return when its systemd has started everything. Raise NotBootedError."""
        groups = [path / self._name for path in HIERARCHIES]
        for group in groups:
            group.mkdir(exist_ok=True)
        enter = "".join(f"echo $$ >{group}/cgroup.procs; " for group in groups)
        nspawn = (
            f"exec systemd-nspawn -q -D {self.root} -M {self._name} --boot --register=no --keep-unit --private-network "
            "--console=pipe"
        )
        with self.log.open("ab") as log:
            self._container = subprocess.Popen(
                ["sh", "-c", enter + nspawn], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._until_up()

    def _until_up(self) -> None:
        give_up = time.monotonic() + SECONDS
        while time.monotonic() < give_up and self._container.poll() is None:
            with suppress(OSError, IndexError, ValueError):
                children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children").read_text()
                self._leader = int(children.split()[0])
                is_there = Path(f"/proc/{self._leader}/comm").read_text().strip() == "systemd"
                if is_there and self.state() in ("running", "degraded"):
                    return
            time.sleep(0.1)
        self.destroy()
        raise NotBootedError(self.log.read_text(errors="replace")[-2000:])

    def state(self) -> str:
        """Return what systemd says of itself."""
        return self.run("systemctl", "is-system-running", check=False).stdout.strip()

    def run(self, *words: str, check: bool = True, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command inside, and return how it went."""
        as_user = ["runuser", "-u", user, "--"] if user else []
        done = subprocess.run(
            ["nsenter", "-t", str(self._leader), "-a", *as_user, *words], capture_output=True, text=True, timeout=SECONDS,
            env=ENVIRONMENT, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def says(self, *words: str, user: str | None = None) -> str:
        """Return what a command prints."""
        return self.run(*words, user=user).stdout

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start a command inside."""
        return subprocess.Popen(
            ["nsenter", "-t", str(self._leader), "-a", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=ENVIRONMENT, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def path(self, name: str) -> Path:
        """Return a file of the machine as seen from outside, with what is mounted in it."""
        return Path(f"/proc/{self._leader}/root{name}")

    def power_off(self) -> None:
        """Shut it down in peace."""
        with suppress(subprocess.TimeoutExpired, AssertionError):
            self.run("systemctl", "poweroff", check=False)
            self._container.wait(SECONDS)
        self.destroy()

    def destroy(self) -> None:
        """End it at once: a crash of the machine."""
        if self._container is not None and self._container.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self._leader or self._container.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._container.wait(20)
            if self._container.poll() is None:
                self._container.kill()
                self._container.wait()
        for group in (path / self._name for path in HIERARCHIES):
            for folder in sorted(group.rglob("*/"), reverse=True) if group.is_dir() else ():
                with suppress(OSError):
                    folder.rmdir()
            with suppress(OSError):
                group.rmdir()

    def remove(self) -> None:
        """Leave nothing."""
        self.destroy()
        shutil.rmtree(self.root)


def until(condition, what, seconds: float = SECONDS):
    """Return what `condition` returns once it is true."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come")
