"""The write side of a store: each write is a change, and one thread commits the waiting changes together.

A burst of writes therefore costs a few commits. A change that the database refuses fails alone. While the database itself
cannot be written (disk full, locked, server down, no answer), `outage.py` keeps the changes and retries.
"""

from __future__ import annotations

import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ..core.errors import StoreAwayError, StoreError
from ..core.models import JobRecord, Pause, Position, Run
from .backend import Database, PendingChange
from .changes import Change, ClaimRun, DeleteRuns, FinishRuns, RecordRuns, SaveDay, SaveJobs, SetPause
from .outage import Outage
from .outage_journal import Backlog
from .outage_spool import OutageSpool
from .protocol import DailyFigures
from .sequences import SequenceGenerator

log = logging.getLogger(__name__)

MOST_IN_ONE = 2000  # changes in one transaction
POLL_SECONDS = 0.1  # during an outage: time between two checks whether it is over


class StoreWriter(ABC):
    """The write side of every backend; the protocols in `protocol.py` define what each write means."""

    def __init__(self, database: Database, spool: OutageSpool | None = None) -> None:
        self.commits = 0  # transactions committed since the start
        self._database = database
        self._spool = spool
        self._outage = Outage(database, spool)
        self._sequences = SequenceGenerator()
        self._is_open = False
        self._waiting: queue.SimpleQueue[PendingChange | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._write_until_closed, name="store-writer", daemon=True)

    def open(self) -> None:
        """Open the database and write into it the changes that an earlier daemon left in the outage journal.

        Raise StoreAwayError when it cannot be opened now but perhaps later, StoreError when a retry cannot succeed.
        """
        if self._thread.ident is None:
            _start(self._outage.begin)  # now, and not when the first run waits for its row
            if not self._is_open:
                self._database.open()
                self._is_open = True
            self._outage.catch_up()
            _start(self._thread.start)
        self._sequences.continue_after(self.last_place())

    @abstractmethod
    def last_place(self) -> Position:
        """Return the largest sequence and the largest run_id in the ledger."""

    def numbered(self, run: Run) -> Run:
        """Return a new run with its sequence; see `Ledger.numbered`."""
        return self._sequences.numbered(run)

    @property
    def trouble(self) -> str | None:
        """Return why writes are waiting, or None."""
        return self._outage.trouble

    @property
    def accepts_runs(self) -> bool:
        """Return whether new runs can be recorded now; see `Ledger.accepts_runs`."""
        return self._outage.accepts_runs

    @property
    def ends_in_memory(self) -> int:
        """Return how many ends of runs are in memory only; see `Ledger.ends_in_memory`."""
        return self._outage.ends_in_memory

    @property
    def backlog(self) -> Backlog:
        """Return the state of the outage journal."""
        return self._outage.backlog

    @property
    def alarm(self) -> str | None:
        """Return what an operator must do about the outage journal, or None. A SQLite file adds its own damage."""
        return self._spool.alarm if self._spool is not None else None

    def record(self, runs: Sequence[Run], asks: bool = False) -> Future[frozenset[str]]:
        """Enter rows into the ledger; see `Ledger.record`."""
        return self._submit(RecordRuns([self._sequences.numbered(run) for run in runs], asks))

    def claim(self, run_id: str) -> Future[bool]:
        """Claim a queued run; see `Ledger.claim`."""
        return self._submit(ClaimRun(run_id))

    def finish(self, runs: Sequence[Run], then: Sequence[Run] = ()) -> Future[frozenset[str]]:
        """Write how runs ended; see `Ledger.finish`."""
        return self._submit(FinishRuns(runs, [self._sequences.numbered(run) for run in then]))

    def save_jobs(self, records: Sequence[JobRecord]) -> Future[None]:
        """Save the rules of jobs; see `Ledger.save_jobs`."""
        return self._submit(SaveJobs(records))

    def set_pause(self, job_id: str, pause: Pause | None) -> Future[None]:
        """Pause or resume a job; see `Ledger.set_pause`."""
        return self._submit(SetPause(job_id, pause))

    def delete_runs(self, run_ids: Sequence[str]) -> Future[list[str]]:
        """Delete rows; see `Maintenance.delete_runs`."""
        return self._submit(DeleteRuns(run_ids))

    def save_day(self, day: str, jobs: Sequence[DailyFigures]) -> Future[None]:
        """Replace the figures of a day; see `DailyStatistics.save_day`."""
        return self._submit(SaveDay(day, jobs))

    def close(self) -> None:
        """Write what is waiting, end the thread and close the database."""
        self._end_thread()
        self._database.close()

    def _submit(self, change: Change) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:  # nothing may follow the end mark in the queue
            if self._closing.is_set():
                future.set_exception(StoreError("the store is closed"))
            else:
                self._waiting.put((change, future))
        return future

    def _end_thread(self) -> None:
        with self._lock:
            if not self._closing.is_set():
                self._closing.set()
                self._waiting.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _write_until_closed(self) -> None:
        is_open, last_error = True, ""
        while is_open:
            batch, is_open = self._next_batch()
            try:
                self._write(batch)
            except Exception as error:  # the thread must not end: no change would be written any more
                if repr(error) != last_error:
                    log.exception("store writer: unexpected error, the changes are retried")
                last_error = repr(error)
                self._outage.on_unexpected_error(batch, error)
        self._outage.end()

    def _write(self, batch: list[PendingChange]) -> None:
        if self._outage.is_on:
            self._outage.advance(batch)
            return
        self._outage.tidy()
        if batch and self._outage.write(batch):
            self.commits += 1

    def _next_batch(self) -> tuple[list[PendingChange], bool]:
        """Wait for a change and return it with all that follow it in the queue; False when the store is closing.

        During an outage the wait is short, and the batch may be empty.
        """
        batch: list[PendingChange] = []
        is_polling = self._outage.is_on or self._outage.is_untidy
        try:
            item = self._waiting.get(timeout=POLL_SECONDS if is_polling else None)
            while item is not None:
                batch.append(item)
                if len(batch) == MOST_IN_ONE:
                    return batch, True
                item = self._waiting.get_nowait()
        except queue.Empty:
            return batch, True
        return batch, False


def _start(start: Callable[[], None]) -> None:
    """Start a thread. Raise StoreAwayError when the system has no more threads."""
    try:
        start()
    except RuntimeError as error:
        raise StoreAwayError(f"the history cannot be opened: {error}") from error
