"""Redis as a source: its RDB file, received as a replica does (`redis-cli --rdb`), so the server may be on another host."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..secrets.database_errors import redis_words
from .commands import Tool, call, text_of, write_output
from .source import BackupError, Order, RefutedError, SourceCopy, SourceType
from .tls_tunnel import tunnel
from .urls import RedisServer, redis

MAGIC = b"REDIS"
LOAD_SECONDS = 3600  # the longest time for a scratch server to load a backup; the timeout of the run may be shorter
POLL_SECONDS = 0.1
FALSE = ("", '""', '"0"', "(integer) 0", "(nil)", "(false)")


def _copy(order: Order, path: str) -> SourceCopy:
    server = redis(order["url"])
    with _reached(server) as place:
        call(Tool(["redis-cli", *place, *server.login, "--no-auth-warning", "--rdb", path], server.env))
    return SourceCopy(text_of(Tool(["redis-cli", "--version"])))


@contextmanager
def _reached(server: RedisServer) -> Iterator[tuple[str, ...]]:
    """Provide the arguments of `redis-cli` that select the server."""
    if server.tls is not None:
        with tunnel(server.host, server.port, server.tls) as path:
            yield "-s", path
    elif server.path is not None:
        yield "-s", server.path
    else:
        yield "-h", server.host, "-p", str(server.port)


def _size(order: Order) -> int:
    """Return the memory that the server uses. An RDB file is smaller."""
    server = redis(order["url"])
    with _reached(server) as place:
        said = text_of(Tool(["redis-cli", *place, *server.login, "--no-auth-warning", "INFO", "memory"], server.env))
    found = re.search(r"^used_memory:(\d+)", said, re.MULTILINE)
    return int(found[1]) if found else 0


def _check(_order: Order, path: str) -> None:
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise BackupError("the server did not send an RDB file")
    call(Tool(["redis-check-rdb", path]))  # reads all of it, and compares its checksum


def _restore(order: Order, path: str, scratch: str) -> None:
    """Load the file into a scratch server, and check the assertions, which are commands."""
    commands = {text: _words(text) for text in order["assertions"]}
    os.rename(path, os.path.join(scratch, "dump.rdb"))
    with _server(scratch) as socket:
        for text, words in commands.items():
            # --no-raw shows the type, so that an error differs from a value that looks like one. (-e needs Redis 7.)
            answer = text_of(Tool(["redis-cli", "-s", socket, "--no-raw", *words]))
            if answer in FALSE or answer.startswith(("(error)", "(empty ")):
                write_output(f"{answer}\n")
                reply = redis_words(answer) if answer.startswith("(error)") else answer or "nothing"
                raise RefutedError(f"the assertion {text!r} does not hold: {reply}")


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise BackupError(f"the assertion {command!r} is not a command: {error}") from None
    if not words:
        raise BackupError("an assertion is empty: expected a Redis command")
    return words


@contextmanager
def _server(scratch: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="schedulerd-") as folder:  # the path of a socket must not exceed 107 bytes
        socket = os.path.join(folder, "s")
        process = _started({"port": "0", "unixsocket": socket, "dir": scratch, "dbfilename": "dump.rdb", "save": ""})
        try:
            _wait_until_loaded(process, socket)
            yield socket
        finally:
            process.kill()
            process.wait()


def _started(settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    argv = ["redis-server", *(word for name, value in settings.items() for word in (f"--{name}", value))]
    try:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603 - a fixed program
    except FileNotFoundError:
        raise BackupError("program 'redis-server' does not exist on this host: install it for drills of Redis") from None


def _wait_until_loaded(process: subprocess.Popen[bytes], socket: str) -> None:
    for _ in range(int(LOAD_SECONDS / POLL_SECONDS)):
        try:
            status = process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            ping = ["redis-cli", "-s", socket, "ping"]
            answer = subprocess.run(ping, capture_output=True, check=False)  # noqa: S603 - a fixed program
            if answer.stdout.strip() == b"PONG":
                return
        else:
            raise BackupError(f"redis-server could not load the backup (status {status})")
    raise BackupError(f"redis-server did not load the backup within {LOAD_SECONDS} s")


SOURCE_TYPE = SourceType(".rdb", _copy, _check, _size, _restore)
