"""Real servers that the tests start themselves, in temporary folders and on Unix sockets."""

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.waiting import until


def find(program: str) -> str:
    """Return where a server's program is; without it the test is skipped, and in CI it fails."""
    places = [*sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True), *os.environ["PATH"].split(":"), "/usr/sbin"]
    found = shutil.which(program, path=":".join(places))
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{program} is not installed: CI must test with it (tests/install-servers)")
    if found is None:
        pytest.skip(f"{program} is not installed (tests/install-servers)")
    return found


class PostgresServer:
    """A PostgreSQL on a Unix socket, with trust for local users; it refuses to run as root, so root becomes `nobody`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="schedulerd-pg-"))
        self._user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        if self._user:
            shutil.chown(self.folder, "nobody", "nogroup")
        self._control = find("pg_ctl")
        self._fill()
        self.start()

    def _fill(self) -> None:
        """Make the folder `data` that the server starts from."""
        self._call(find("initdb"), "-A", "trust", "--no-sync", "-U", "postgres", "-D", str(self.folder / "data"))

    @property
    def url(self) -> str:
        """Return how to connect."""
        return f"postgresql://postgres@/postgres?host={self.folder}"

    def locked(self, password: str, database: str = "postgres") -> str:
        """Return the URL of a user whose password, `s3cret-pass`, is asked for, with the one that is given."""
        rules = self.folder / "data" / "pg_hba.conf"
        if "locked" not in rules.read_text():
            rules.write_text("local all locked scram-sha-256\n" + rules.read_text())
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute("CREATE ROLE locked LOGIN SUPERUSER PASSWORD 's3cret-pass'")
                connection.execute("SELECT pg_reload_conf()")
        return f"postgresql://locked:{password}@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start, and return when it answers."""
        options = f"-c listen_addresses= -k {self.folder} -c fsync=off -c wal_retrieve_retry_interval=100ms"
        self._call(self._control, "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-o", options, "-w", "start")

    def dump(self, schema: str) -> str:
        """Return the definitions of a schema, without the table of its migrations."""
        options = ["--schema-only", "--no-owner", f"--schema={schema}", f"--exclude-table={schema}.schedulerd_migrations"]
        done = subprocess.run([find("pg_dump"), *options, self.url], capture_output=True, text=True, check=True)
        return "\n".join(line for line in done.stdout.splitlines() if not line.startswith("\\"))  # random since 15.14

    def ask(self, question: str, *arguments: Any) -> Any:
        """Return the first value of an answer, asked by the superuser."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            answer = connection.execute(question, arguments or None)
            return (answer.fetchone() or [None])[0] if answer.description else None

    def demand_passwords(self) -> None:
        """Let nobody in without a password from now on, but the superuser."""
        lines = ["local all postgres trust", "local all all scram-sha-256"]
        (self.folder / "data" / "pg_hba.conf").write_text("\n".join(lines) + "\n")
        self._call(self._control, "-D", str(self.folder / "data"), "reload")

    def stop(self) -> None:
        """Stop at once."""
        self._call(self._control, "-D", str(self.folder / "data"), "-m", "immediate", "stop")

    def _signal(self, number: int) -> list[int]:
        """Send a signal to all of its processes, and return them."""
        first = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        found = [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]
        for each in found:
            with suppress(ProcessLookupError):
                os.kill(each, number)
        return found

    def freeze(self, is_frozen: bool = True) -> None:
        """Let it take connections and orders, and answer nothing."""
        self._signal(signal.SIGSTOP if is_frozen else signal.SIGCONT)

    def kill(self) -> None:
        """kill -9 of all of its processes."""
        killed = self._signal(signal.SIGKILL)
        until(lambda: not any(map(_runs, killed)), "the end of the server")
        # Who reaps orphans may be slow, and a zombie passes for a server that still runs.
        for lock in ("data/postmaster.pid", ".s.PGSQL.5432.lock", ".s.PGSQL.5432"):
            (self.folder / lock).unlink(missing_ok=True)

    def close(self) -> None:
        """Stop, and leave nothing."""
        subprocess.run([*self._user, self._control, "-D", str(self.folder / "data"), "-m", "immediate", "stop"],
                       capture_output=True, cwd="/", check=False)  # fmt: skip
        shutil.rmtree(self.folder, ignore_errors=True)

    def _call(self, *command: str) -> None:
        # Not through pipes: the server inherits them, and reading them would wait for its end.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run([*self._user, *command], stdout=output, stderr=output, cwd="/", check=False)
            output.seek(0)
            assert done.returncode == 0, output.read().decode()


class StandbyServer(PostgresServer):
    """A hot standby that streams from another PostgreSQL of the tests; that one is its `primary`."""

    def __init__(self, primary: PostgresServer) -> None:
        self.primary = primary
        super().__init__()

    def _fill(self) -> None:
        where = ["--host", str(self.primary.folder), "--username", "postgres", "--pgdata", str(self.folder / "data")]
        self._call(find("pg_basebackup"), *where, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")

    def has_all(self) -> bool:
        """Return whether it has replayed all that its primary has written."""
        return self.ask("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", self.primary.ask("SELECT pg_current_wal_lsn()"))


def _runs(number: int) -> bool:
    """Return whether a process is there, and not only its exit status."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except FileNotFoundError:
        return False


class RedisServer:
    """A Redis on a Unix socket."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        command = [find("redis-server"), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder), "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    @property
    def url(self) -> str:
        """Return how to connect."""
        return f"unix://{self.socket}"

    def answers(self) -> bool:
        """Return whether it takes connections: its socket is there a moment before that."""
        with socket.socket(socket.AF_UNIX) as line:
            return line.connect_ex(str(self.socket)) == 0

    def close(self) -> None:
        """Stop."""
        self.process.kill()
        self.process.wait()
