"""A pgbouncer in transaction mode, with fewer connections to the server than it has clients."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.servers import find
from tests.support.waiting import until


class Pooler:
    """Stands between clients and a PostgreSQL on a Unix socket."""

    def __init__(self, server: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="schedulerd-pool-"))
        config = self.folder / "pgbouncer.ini"
        config.write_text(
            f"[databases]\npostgres = host={server} user=postgres\n[pgbouncer]\nlisten_addr =\nauth_type = any\n"
            f"unix_socket_dir = {self.folder}\nlisten_port = 5432\npool_mode = transaction\ndefault_pool_size = 2\n"
            f"logfile = {self.folder}/log\n"
        )
        user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        if user:
            for path in (self.folder, config):
                shutil.chown(path, "nobody", "nogroup")
        self.url = f"postgresql://postgres@/postgres?host={self.folder}"
        self._process = subprocess.Popen(
            [*user, find("pgbouncer"), "-q", str(config)], cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until((self.folder / ".s.PGSQL.5432").exists, "the socket of pgbouncer")

    def close(self) -> None:
        """Stop, and leave nothing."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
