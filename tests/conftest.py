"""Fixtures: real daemons, stores and servers."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from schedulerd.store.sqlite.store import SqliteStore
from tests.support.certificates import Authority
from tests.support.daemon import RunningDaemon
from tests.support.servers import PostgresServer, RedisServer
from tests.support.waiting import until

# CI decides about a change, so it tries the same examples each time; people's runs look for new ones. Nowhere is it asked
# how long an example takes.
settings.register_profile("people", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "people")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., RunningDaemon]]:
    """Make daemons, each in the test's folder; what still runs at the end is killed."""
    made: list[RunningDaemon] = []

    def make(
        jobs: dict[str, Any], folder: Path | None = None, env: dict[str, str] | None = None, **top: Any
    ) -> RunningDaemon:
        place = folder or tmp_path / f"d{len(made)}"
        place.mkdir(0o755, exist_ok=True)  # what others may write into is not trusted, whatever the umask
        made.append(RunningDaemon(place, {"shutdown_grace": "5s", **top, "jobs": jobs}, env))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store in a temporary file."""
    made = SqliteStore(str(tmp_path / "history.db"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for the whole session."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who has signed the certificates of the servers with TLS."""
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that has signed none of them."""
    return Authority(tmp_path_factory.mktemp("tls"), "stranger")


@pytest.fixture(scope="session")
def tls_postgres(authority: Authority) -> Iterator[PostgresServer]:
    """A PostgreSQL for the whole session that is reached over TLS."""
    server = PostgresServer(authority.sign("localhost"))
    yield server
    server.close()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for one test."""
    server = RedisServer(tmp_path)
    until(server.answers, "redis-server")
    yield server
    server.close()
