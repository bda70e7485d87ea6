"""A pool of connections, each lent to one reader at a time and kept open."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from ..core.errors import StoreError


class Closable(Protocol):
    """A connection."""

    def close(self) -> None:
        """Close it."""


C = TypeVar("C", bound=Closable)


class ConnectionPool(Generic[C]):
    """At most `most` connections, each opened at its first use."""

    def __init__(self, connect: Callable[[], C], most: int) -> None:
        self._connect = connect
        self._most = most
        self._is_closed = False
        self._free: queue.LifoQueue[C | None] = queue.LifoQueue()
        for _ in range(most):
            self._free.put(None)

    @contextmanager
    def lend(self, seconds: float | None = None) -> Iterator[C]:
        """Lend a connection. One that is `closed` after an error is replaced for the next reader.

        Raise StoreError when the store is closed, or when no connection is free within `seconds`.
        """
        try:
            connection = self._free.get(timeout=seconds)
        except queue.Empty:
            raise StoreError(f"the history is too busy: no free connection for {seconds:g} s") from None
        try:
            if self._is_closed:
                raise StoreError("the store is closed")
            if connection is None:
                connection = self._connect()
            yield connection
        finally:
            self._free.put(None if getattr(connection, "closed", False) else connection)

    def close(self) -> None:
        """Close all connections, after waiting for those that are lent."""
        self._is_closed = True
        lent = [self._free.get() for _ in range(self._most)]
        for connection in lent:
            if connection is not None:
                connection.close()
            self._free.put(None)
