"""One thread that writes: what is waiting goes into one transaction, so a burst costs a handful of commits.

A change that the database refuses fails alone. When the database itself is away (disk full, locked, server down, silent),
`outage.py` takes over until it is back and has everything.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ..core.errors import StoreAwayError, StoreError
from .backend import Database, Item
from .changes import Change
from .outage import Outage
from .outage_journal import Backlog
from .outage_spool import Spool

log = logging.getLogger(__name__)

MOST_IN_ONE = 2000  # changes in one transaction
LOOK_SECONDS = 0.1  # during an outage: how often it is looked whether it is over


class Writer(threading.Thread):
    """Makes changes in a database, many in one commit."""

    def __init__(self, database: Database, spool: Spool | None = None) -> None:
        super().__init__(name="store-writer", daemon=True)
        self.commits = 0
        self._database = database
        self._is_open = False
        self._outage = Outage(database, spool)
        self._waiting: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._lock = threading.Lock()

    def open(self) -> None:
        """Open the database, write what an earlier daemon left in the journal, and start.

        Raise StoreError, or StoreAwayError when it may be possible later.
        """
        if self.ident is not None:
            return
        _begin(self._outage.begin)  # now, and not when a run waits for its row
        if not self._is_open:
            self._database.open()
            self._is_open = True
        self._outage.catch_up()
        _begin(self.start)

    @property
    def trouble(self) -> str | None:
        """Return why the database is not written, or None."""
        return self._outage.trouble

    @property
    def backlog(self) -> Backlog:
        """Return what waits in the outage journal."""
        return self._outage.backlog

    @property
    def ends_kept(self) -> int:
        """Return how many ends of runs are in memory only, until they can be written."""
        return self._outage.ends_kept

    @property
    def takes_runs(self) -> bool:
        """Return whether rows of new runs are taken now, by the database or by the journal."""
        return self._outage.takes_runs

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
        """Write what is waiting and end the thread; the database stays open."""
        with self._lock:
            if not self._closing.is_set():
                self._closing.set()
                self._waiting.put(None)
        if self.ident is not None:
            self.join()

    def run(self) -> None:
        """Write until closed."""
        is_open, stumbled = True, ""
        while is_open:
            batch, is_open = self._take()
            try:
                self._deal_with(batch)
            except Exception as error:  # this loop must not die: nothing would ever be written again
                if repr(error) != stumbled:
                    log.exception("what was to be written met an error that nobody expected: it is tried again")
                stumbled = repr(error)
                self._outage.stumble(batch, error)
        self._outage.end()

    def _deal_with(self, batch: list[Item]) -> None:
        if self._outage.is_on:
            self._outage.go_on(batch)
            return
        self._outage.tidy()
        if batch and self._outage.write(batch):
            self.commits += 1

    def _take(self) -> tuple[list[Item], bool]:
        """Wait for one change, and take with it all that wait behind it; during an outage, not for long."""
        batch: list[Item] = []
        looks = self._outage.is_on or self._outage.is_untidy
        try:
            item = self._waiting.get(timeout=LOOK_SECONDS if looks else None)
            while item is not None:
                batch.append(item)
                if len(batch) == MOST_IN_ONE:
                    return batch, True
                item = self._waiting.get_nowait()
        except queue.Empty:
            return batch, True
        return batch, False


def _begin(start: Callable[[], None]) -> None:
    """Start a thread. Raise StoreAwayError when there is none to be had."""
    try:
        start()
    except RuntimeError as error:
        raise StoreAwayError(f"the history cannot be opened: {error}") from error
