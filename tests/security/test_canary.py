"""S29: secrets of every kind are used for real, and then looked for wherever somebody else may look."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
from base64 import b64encode
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psycopg
import pytest
import redis

from schedulerd.cli.client import PREFIX
from tests.security.test_config_secrets import with_role
from tests.support.servers import find

CANARY = "C4nary"
LOOKED_FOR = [CANARY, *(b64encode(b"x" * before + CANARY.encode())[before + 1 : 8].decode() for before in range(3))]


def secret(kind):
    return f"{CANARY}-{kind}/p@ss word"


class Watcher(threading.Thread):
    """Reads the command lines of all new processes, a hundred times a second."""

    def __init__(self):
        super().__init__(daemon=True)
        self.found, self.programs, self.is_over = set(), set(), threading.Event()
        self.old = set(os.listdir("/proc"))

    def run(self):
        while not self.is_over.wait(0.01):
            for name in set(os.listdir("/proc")) - self.old:
                try:
                    words = Path(f"/proc/{name}/cmdline").read_bytes()
                except OSError:
                    continue
                self.programs.add(os.path.basename(words.partition(b"\0")[0]))
                if CANARY.encode() in words:
                    self.found.add(words)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.join()


@pytest.fixture
def echo():
    """A server that answers 500 with all that it was asked; its address."""

    class Echo(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(500)
            self.end_headers()
            self.wfile.write(f"{self.path}\n{self.headers}\n".encode() + body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def role(postgres):
    """The URL of a role of PostgreSQL with a password; the server trusts whoever is local, and keeps it."""
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute(psycopg.sql.SQL("CREATE ROLE canary LOGIN SUPERUSER PASSWORD {}").format(secret("dsn")))
        yield f"postgresql://canary:{CANARY}-dsn%2Fp%40ss%20word@/postgres?host={postgres.folder}"
        server.execute("DROP ROLE canary")


SAYS = r"""env; env >&2; python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'; env | base64 -w0
python3 -c 'import os; os.environ["TOKEN"].encode("latin-1").decode("utf-7"); raise RuntimeError(dict(os.environ))'
"""


def jobs_with(url, folder):
    """Return jobs that use secrets, and tell them where they can."""
    token = {"file": str(folder / "token")}
    loud = {"shell": SAYS, "env": {"TOKEN": token, "OTHER": {"env": "CANARY_ENV"}}, "env_file": str(folder / "vars")}
    python = {"call": "loud:loud", "kwargs": {"word": "x"}}
    return {
        "loud": loud,
        "python": {"python": python, "python_path": str(folder), "env": {"TOKEN": token}},
        "http": {"http": {"url": url, "method": "POST", "headers": {"X-Key": {"file": str(folder / "header")}},
                          "body": {"file": str(folder / "body")}}},
        "sql": {"sql": {"dsn": {"file": str(folder / "dsn")}, "statement": "SELECT 1/0"}},
        "b": {"backup": {"source": "main"}},
        "d": {"restore_drill": {"of": "b", "into": "main", "assertions": ["SELECT false"]}},
        "r": {"backup": {"source": "cache"}},
        "refused": {"backup": {"source": "wrong"}},
        "health": {"health_check": {"targets": {"r": {"redis": "wrong"}}}},
    }  # fmt: skip


def test_s29_no_secret_is_anywhere_that_somebody_else_may_look(daemon, tmp_path, role, redis_server, echo):
    find("pg_dump"), find("redis-cli")
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
        client.config_set("requirepass", secret("redis"))
    for name in ("token", "header", "body"):
        (tmp_path / name).write_text(secret(name) + "\n")
    (tmp_path / "dsn").write_text(role)
    (tmp_path / "vars").write_text(f"FROM_FILE='{secret('vars')}'\n")
    (tmp_path / "loud.py").write_text(
        "import os\ndef loud(word):\n    secret = os.environ['TOKEN']\n    raise ValueError(f'not {secret!r}')\n"
    )
    coded = f"{CANARY}-redis%2Fp%40ss%20word"
    sources = {
        "main": {"file": str(tmp_path / "dsn")},
        "cache": f"{redis_server.url}?password={coded}",
        "wrong": f"{redis_server.url}?password={CANARY}-wrong-{coded}",
    }
    env = {**os.environ, "CANARY_ENV": secret("env")}
    jobs = jobs_with(echo, tmp_path)
    running = daemon(jobs, sources=sources, env=env, api={"listen": "127.0.0.1:0"})
    running.start()
    with Watcher() as watcher:
        runs = {job: running.client.post(f"jobs/{job}/trigger", wait="false").body["run_id"] for job in jobs if job != "d"}
        running.client.get(f"runs/{runs['b']}", wait="true")
        runs["d"] = running.client.post("jobs/d/trigger").body["run_id"]
        ended = {job: running.client.get(f"runs/{run_id}", wait="true") for job, run_id in runs.items()}

    failed = {job for job, body in ended.items() if body["status"] == "failed"}
    assert failed == {"loud", "python", "http", "sql", "d", "refused"}, ended
    assert b"pg_dump" in watcher.programs
    seen = {"cmdline": watcher.found, "log": running.log(), "ended": json.dumps(ended)}
    for name in ("admin", "operator", "viewer"):
        client = running.client if name == "admin" else with_role(running, name)
        paths = ["jobs", "runs", "running", "health", "health/history", "backups", "stats", "stats?days=30"]
        paths += [f"jobs/{job}{what}" for job in jobs for what in ("", "/history", "/next", "/why")]
        paths += [f"runs/{body['run_id']}{what}" for body in ended.values() for what in ("", "/output")]
        seen[name] = [str(client.ask("GET", f"{PREFIX}/{path}").body) for path in paths]
    with closing(sqlite3.connect(running.folder / "state" / "history.db")) as history:
        seen["history"] = list(history.iterdump())
    written = [*running.folder.glob("state/*.json"), *running.folder.glob("state/backups/*.json")]
    seen["files"] = [path.read_text() for path in written]
    check = [sys.executable, "-m", "schedulerd", "--check-config", "--config", str(running.config_path)]
    seen["check"] = subprocess.run(check, env=env, capture_output=True, text=True, check=False)

    assert "".join(seen["viewer"]).count("*" * len(secret("token"))) >= 4  # they were told, and are masked
    assert [
        (place, line)
        for place, text in seen.items()
        for line in str(text).splitlines()
        if any(each in line for each in LOOKED_FOR)
    ] == []
