"""One thread that writes: what is waiting goes into one transaction, so a burst costs a handful of commits.

The thread owns the database's only connection that writes. A change that the database refuses fails alone; when the
database itself is away (disk full, locked, server down), everything waits and is tried again, in order, until it is back.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from ..errors import StoreAwayError, StoreError
from .changes import Change

log = logging.getLogger(__name__)

MOST_IN_ONE = 2000  # changes in one transaction
RETRY_SECONDS = 0.5
RETRIES_AT_CLOSE = 4

_Item = tuple[Change, "Future[Any]"]


class Database(Protocol):
    """The writing side of a database; used by one thread."""

    def apply(self, changes: Sequence[Change]) -> list[Any]:
        """Make changes in one transaction, in their order, and return the result of each when they are durable.

        Raise StoreAwayError when the database is away: they may have been made all the same, and are safe to make again.
        Any other error says that one of them cannot be made; then none of them was.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Writer(threading.Thread):
    """Makes changes in a database, many in one commit."""

    def __init__(self, database: Database) -> None:
        super().__init__(name="store-writer", daemon=True)
        self.trouble: str | None = None
        self.commits = 0
        self._database = database
        self._waiting: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._pause = threading.Event()  # never set
        self._lock = threading.Lock()

    def submit(self, change: Change) -> Future[Any]:
        """Hand over a change; its future is done when it is durable."""
        future: Future[Any] = Future()
        with self._lock:  # so that nothing is put behind the end mark
            if self._closing.is_set():
                future.set_exception(StoreError("the store is closed"))
            else:
                self._waiting.put((change, future))
        return future

    def close(self) -> None:
        """Write what is waiting and end the thread."""
        with self._lock:
            if not self._closing.is_set():
                self._closing.set()
                self._waiting.put(None)
        self.join()

    def run(self) -> None:
        """Write until closed."""
        is_open = True
        while is_open:
            batch, is_open = self._take()
            if batch:
                self._write(batch)
        self._database.close()

    def _take(self) -> tuple[list[_Item], bool]:
        """Wait for one change, and take with it all that wait behind it."""
        item = self._waiting.get()
        batch: list[_Item] = []
        while item is not None:
            batch.append(item)
            if len(batch) == MOST_IN_ONE:
                return batch, True
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _write(self, batch: list[_Item]) -> None:
        tries = 0
        while True:
            try:
                results = self._database.apply([change for change, _ in batch])
            except StoreAwayError as error:
                tries += 1
                if self._closing.is_set() and tries > RETRIES_AT_CLOSE:
                    _fail(batch, StoreError(f"the store could not be written before the end: {error}"))
                    return
                self._complain(error, len(batch))
                self._pause.wait(RETRY_SECONDS)
            except Exception as error:  # whatever a change raises must not end the thread: it fails alone
                if len(batch) == 1:
                    log.error("the store refused a change: %s", error)
                    _fail(batch, StoreError(f"the store refused a change: {error}"))
                else:
                    for item in batch:
                        self._write([item])
                return
            else:
                self.trouble = None
                self.commits += 1
                _succeed(batch, results)
                return

    def _complain(self, error: Exception, waiting: int) -> None:
        if self.trouble is None:
            log.error("the store cannot be written, %d changes wait: %s", waiting, error)
        self.trouble = str(error)


def _succeed(batch: list[_Item], results: list[Any]) -> None:
    for (_, future), result in zip(batch, results, strict=True):
        future.set_result(result)


def _fail(batch: list[_Item], error: StoreError) -> None:
    for _, future in batch:
        future.set_exception(error)
