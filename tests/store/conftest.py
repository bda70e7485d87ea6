"""Fixtures: a store of each kind."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from schedulerd.store.postgres.store import PostgresStore
from schedulerd.store.protocol import Store
from schedulerd.store.sqlite.store import SqliteStore

KINDS = ("sqlite", "postgres")
SCHEMAS = count()


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Open the test's own history; once more for another one who uses it."""
    if request.param == "sqlite":
        return lambda: SqliteStore(str(tmp_path / "history.db"))
    url, schema = request.getfixturevalue("postgres").url, f"history_{next(SCHEMAS)}"
    return lambda: PostgresStore(url, schema)


@pytest.fixture
def store(opened: Callable[[], Store]) -> Iterator[Store]:
    """An empty store of each kind."""
    made = opened()
    yield made
    made.close()
