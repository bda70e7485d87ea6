"""Fixtures: real daemons, stores and servers."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from schedulerd.store.sqlite.store import SqliteStore
from tests.support.certificates import Authority
from tests.support.daemon import RunningDaemon
from tests.support.forkserver import FORK_SERVER
from tests.support.leftovers import leftovers, name_run
from tests.support.servers import PostgresServer, RedisServer
from tests.support.small_disk import SmallDisk
from tests.support.waiting import until

# CI decides about a change, so it tries the same examples each time; people's runs look for new ones. Nowhere is it asked
# how long an example takes.
settings.register_profile("people", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "people")

SLOW_SECONDS = 600  # the limit of a test that is marked `slow`; of the others: pyproject.toml
ALONE = "burst"  # the group of tests that keep a machine busy: one after the other on one worker
BUSY = ("tests/torture/", "tests/system/test_burst.py", "tests/system/test_capacity.py", "tests/system/test_failures.py")
SERVERS = (PostgresServer, RedisServer)
DAEMONS = (RunningDaemon, SmallDisk)
LEFT: list[str] = []  # what the run left behind
SERVER_FIXTURES = {"postgres", "tls_postgres", "redis_server"}


def pytest_configure(config: pytest.Config) -> None:
    """Name the run, before its workers start."""
    name_run()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start daemons or servers, give the slow ones their limit, and group those that share a daemon."""
    for item in items:
        _mark_needs(item)
        for mark in item.iter_markers("root"):
            item.add_marker(pytest.mark.skipif(os.geteuid() != 0, reason=mark.args[0]))
        if item.get_closest_marker("slow") is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
        if item.nodeid.startswith(BUSY):
            item.add_marker(pytest.mark.xdist_group(ALONE))
        elif item.get_closest_marker("daemon") is not None and _shares_a_fixture(item):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def _mark_needs(item: pytest.Item) -> None:
    names = set(getattr(item, "fixturenames", ()))
    used = list(vars(getattr(item, "module", None) or sys).values())
    is_on_postgres = "postgres" in str(getattr(getattr(item, "callspec", None), "params", ""))
    if names & SERVER_FIXTURES or is_on_postgres or any(each in SERVERS for each in used if isinstance(each, type)):
        item.add_marker(pytest.mark.servers)
    if "daemon" in names or any(each in DAEMONS for each in used if isinstance(each, type)):
        item.add_marker(pytest.mark.daemon)


def _shares_a_fixture(item: pytest.Item) -> bool:
    """Return whether a fixture of the test is made once for its module."""
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    return any(each.scope == "module" for found in definitions.values() for each in found)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Find what the run leaves behind; it is reported, and does not fail the run yet."""
    FORK_SERVER.close()
    factory = getattr(session.config, "_tmp_path_factory", None)
    if hasattr(session.config, "workerinput") or factory is None:
        return
    LEFT.extend(leftovers(name_run(), factory.getbasetemp()))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name what was left behind."""
    if LEFT:
        terminalreporter.section("left behind by the tests", red=True)
        for each in LEFT:
            terminalreporter.line(each)


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
