"""`schedulerctl` loads only what a command needs: it starts fast."""

import argparse
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from schedulerd.cli.db import VERBS
from schedulerd.cli.main import make_parser

RUN = "01234567-89ab-7def-8123-456789abcdef"
LIGHT = ("", "cli", "core", "config.defaults", "config")  # packages and modules that every command may load
HEAVY = {"aiohttp", "asyncio", "yaml", "psycopg", "redis", "sqlite3", "subprocess", "logging", "multiprocessing"}
SERVER = {"api", "service", "engine", "actions", "process", "daemon"}
LOADED = """
import json, sys
from schedulerd.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)
"""


class _EmptyLists(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), _EmptyLists) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def loaded(*words):
    """Return the exit status of a command, the modules of schedulerd that it loaded, and all other top-level modules."""
    done = subprocess.run([sys.executable, "-c", LOADED, *words], capture_output=True, text=True, check=True)
    status, names = json.loads(done.stderr.splitlines()[-1])
    ours = {name.partition(".")[2] for name in names if name.partition(".")[0] == "schedulerd"}
    return status, ours, {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "words",
    [["list"], ["history", "good"], ["running"], ["backups"], ["health", "--history"], ["list", "--json"]],
    ids=" ".join,
)
def test_a_command_loads_no_part_of_the_daemon(url, words):
    status, ours, others = loaded("--url", url, *words)

    assert status == 0
    assert {name for name in ours if name not in LIGHT and not name.startswith(("cli.", "core."))} == set()
    assert {"cli.db", "cli.explain"} & ours == set()
    assert HEAVY & others == set()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--help"], 0), (["db", "--help"], 0), (["explain", "--help"], 0), (["--version"], 0), (["run", "good", "-f"], 3),
        (["run", "good", "--wait", "10s"], 3), (["logs", RUN], 3), (["cancel", RUN], 3), (["next", "good"], 3),
        (["why", "good"], 3), (["simulate"], 3), (["pause", "good", "--until", "2h"], 3), (["resume", "good"], 3),
        (["stats"], 3), (["health"], 3), (["backups", "drill", "good"], 3), (["show", RUN], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_help_and_a_command_without_a_daemon_load_no_part_of_it(words, expected):
    status, ours, others = loaded("--socket", "/no/such/socket", *words)

    assert status == expected
    assert {name for name in ours if name not in LIGHT and not name.startswith(("cli.", "core."))} == set()
    assert {"cli.db", "cli.explain"} & ours == set()
    assert HEAVY & others == set()


def test_explain_loads_the_triggers_and_nothing_else():
    status, ours, others = loaded("explain", "--every", "10m")

    assert (status, "cli.explain" in ours, "cli.db" in ours) == (0, True, False)
    assert {name.partition(".")[0] for name in ours} <= {"", "cli", "core", "config", "triggers"}
    assert {name for name in ours if name.startswith("config.")} == {"config.defaults"}
    assert {"aiohttp", "asyncio", "yaml", "psycopg", "sqlite3"} & others == set()


def test_db_loads_the_store_and_nothing_of_the_server(tmp_path):
    status, ours, others = loaded("db", "status", f"sqlite://{tmp_path}/none.db")

    assert (status, "cli.db" in ours, "store.factory" in ours) == (1, True, True)
    assert SERVER & {name.partition(".")[0] for name in ours} == set()
    assert {"aiohttp", "psycopg"} & others == set()


def subcommands(parser):
    """Return the subcommands of a parser by name."""
    return next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def test_every_verb_of_db_that_is_declared_is_implemented():
    assert subcommands(subcommands(make_parser())["db"]).keys() == VERBS.keys()
