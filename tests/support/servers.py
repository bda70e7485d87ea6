"""Real servers that the tests start themselves, in temporary folders and on Unix sockets; with TLS on `localhost`, too."""

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.support.certificates import Certificate


def find(program: str) -> str:
    """Return where a server's program is; without it the test is skipped, and in CI it fails."""
    places = [*sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True), *os.environ["PATH"].split(":"), "/usr/sbin"]
    found = shutil.which(program, path=":".join(places))
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{program} is not installed: CI must test with it (tests/install-servers)")
    if found is None:
        pytest.skip(f"{program} is not installed (tests/install-servers)")
    return found


def _free_port() -> int:
    """Return a port of localhost that nobody listens on."""
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


TLS_RULES = """\
local all all trust
hostssl all certified all cert
hostssl all all all scram-sha-256
"""


class PostgresServer:
    """A PostgreSQL on a Unix socket, with trust for local users; it refuses to run as root, so root becomes `nobody`.

    With a certificate it listens on localhost, too, to TLS only: the role `keeper` has a password there, `s3cret-pass`, and
    `certified` a certificate of the same authority.
    """

    def __init__(self, certificate: "Certificate | None" = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="schedulerd-pg-"))
        self._user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        if self._user:
            shutil.chown(self.folder, "nobody", "nogroup")
        self._control = find("pg_ctl")
        self._fill()
        self._options = "-c listen_addresses= -c wal_retrieve_retry_interval=100ms "
        self.port = 5432
        if certificate is not None:
            self._demand_tls(certificate)
        self.start()
        if certificate is not None:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute("CREATE ROLE keeper LOGIN SUPERUSER PASSWORD 's3cret-pass'")
                connection.execute("CREATE ROLE certified LOGIN SUPERUSER")

    def _fill(self) -> None:
        """Make the folder `data` that the server starts from."""
        self._call(find("initdb"), "-A", "trust", "--no-sync", "-U", "postgres", "-D", str(self.folder / "data"))

    @property
    def url(self) -> str:
        """Return how to connect."""
        return f"postgresql://postgres@/postgres?host={self.folder}" + (f"&port={self.port}" if self.port != 5432 else "")

    def tls_url(self, *options: str, user: str = "keeper:s3cret-pass", host: str = "localhost") -> str:
        """Return how to connect over TLS, with options of libpq (`name=value`)."""
        return f"postgresql://{user}@{host}:{self.port}/postgres?" + "&".join(options)

    def _demand_tls(self, certificate: "Certificate") -> None:
        data = self.folder / "data"
        self.port = _free_port()
        for source, name in ((certificate.path, "s.pem"), (certificate.key, "s.key"), (certificate.authority, "ca.pem")):
            shutil.copyfile(source, data / name)
            (data / name).chmod(0o600)
            if self._user:
                shutil.chown(data / name, "nobody", "nogroup")
        (data / "pg_hba.conf").write_text(TLS_RULES)
        files = "-c ssl_cert_file=s.pem -c ssl_key_file=s.key -c ssl_ca_file=ca.pem"
        self._options = f"-c listen_addresses=localhost -c port={self.port} -c ssl=on {files} "

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
        options = f"{self._options}-k {self.folder} -c fsync=off"
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
        for lock in ("data/postmaster.pid", f".s.PGSQL.{self.port}.lock", f".s.PGSQL.{self.port}"):
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

    def promote(self) -> None:
        """Make a primary of it, and return when it is one."""
        self._call(self._control, "-D", str(self.folder / "data"), "-w", "promote")

    def has_received_all(self) -> bool:
        """Return whether it has all that its primary has written, replayed or not."""
        return self.ask("SELECT pg_last_wal_receive_lsn() >= %s::pg_lsn", self.primary.ask("SELECT pg_current_wal_lsn()"))

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
    """A Redis on a Unix socket; with a certificate, on a port of localhost with TLS, too, and may ask clients for theirs."""

    def __init__(self, folder: Path, certificate: "Certificate | None" = None, asks_clients: bool = False) -> None:
        self.socket = folder / "redis.sock"
        self.port = 0
        command = [find("redis-server"), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder), "--save", ""]
        command += ["--repl-diskless-sync-delay", "0"]  # else an RDB comes 5 s later, in case there are more who want one
        if certificate is not None:
            self.port = _free_port()
            command += ["--tls-port", str(self.port), "--tls-auth-clients", "yes" if asks_clients else "no"]
            command += ["--tls-cert-file", str(certificate.path), "--tls-key-file", str(certificate.key)]
            command += ["--tls-ca-cert-file", str(certificate.authority)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    @property
    def url(self) -> str:
        """Return how to connect."""
        return f"unix://{self.socket}"

    def tls_url(self, *options: str, host: str = "localhost", password: str = "") -> str:
        """Return how to connect over TLS, with options of redis-py (`name=value`)."""
        return f"rediss://{f':{password}@' if password else ''}{host}:{self.port}?" + "&".join(options)

    def answers(self) -> bool:
        """Return whether it takes connections: its socket is there a moment before that."""
        with socket.socket(socket.AF_UNIX) as line:
            return line.connect_ex(str(self.socket)) == 0

    def close(self) -> None:
        """Stop."""
        self.process.kill()
        self.process.wait()
