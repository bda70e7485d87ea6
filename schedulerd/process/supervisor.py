"""The daemon's side of the keepers: sends them orders, receives their reports, and keeps them running.

The keepers (`keeper/`) are the parents of all children and outlive the daemon; a child is started in no other way. One
thread, the supervisor, receives all starts and ends, so a run that waits for its child costs no thread.

`keeper_pool.py` sends orders, `reports.py` handles reports, `failover.py` replaces keepers that are gone or silent.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.clock import Clock
from ..core.loop_steps import GuardedStep
from . import failover
from .keeper_connection import KeeperConnection
from .keeper_pool import KeeperPool
from .reports import ReportHandler
from .spec import Cause, KnownRun, ProcessSpec, RunObserver
from .wire import end_of, known_run_of, line_of

log = logging.getLogger(__name__)

OLD_KEEPER = "the keeper is of an earlier version"
FORGOTTEN = "it may have ended long ago, and its keeper has forgotten it: the history may be an older copy"


class Supervisor(threading.Thread):
    """Sends orders to the keepers below `folder` and passes their reports to `observer`."""

    def __init__(self, folder: str, clock: Clock, observer: RunObserver) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._clock = clock
        self._pool = KeeperPool(folder, clock)
        self._reports = ReportHandler(self._pool, clock, observer)
        self._failover = failover.Failover(self._pool, self._reports, clock)
        self._working = GuardedStep("the supervisor of the keepers", clock)
        self._serving = GuardedStep("the connection to a keeper", clock)
        self._greetings: list[Mapping[str, Any]] = []  # from before the start of the thread
        self._check_at: float | None = None  # monotonic: the next check of keepers from which a report is awaited
        self._closing = threading.Event()

    def recover(self) -> dict[str, KnownRun]:
        """Connect to all keepers and return the runs that they know. Ends are passed on once the thread runs.

        Raise StartError when one of the keepers cannot be reached: no one else knows its runs.
        """
        known: dict[str, KnownRun] = {}
        for connection in self._pool.connections:
            made, greeting = connection.starter.connect()
            self._pool.use(connection, made, greeting)
            self._greetings.append(greeting)
            for run_id, entry in greeting["runs"].items():
                if run_id in known and not entry["start"]:  # another keeper has started it, or knows no more either
                    connection.send(line_of({"forget": [run_id]}))
                    continue
                self._assign(connection, run_id, entry)
                known[run_id] = known_run_of(entry)
        return known

    def _assign(self, connection: KeeperConnection, run_id: str, entry: Mapping[str, Any]) -> None:
        """Assign a run to the keeper that reported it, and remove it from another one, which did not start it."""
        other = self._pool.of_run.get(run_id)
        if other is not None:
            other.runs.pop(run_id)
            other.send(line_of({"forget": [run_id]}))
            self._reports.undelivered = [end for end in self._reports.undelivered if end.run_id != run_id]
        connection.runs[run_id], self._pool.of_run[run_id] = None, connection
        if entry["end"] is not None:
            self._reports.undelivered.append(end_of(run_id, entry["end"]))

    def doubt_of(self, run_id: str) -> str | None:
        """Return why a run that no keeper knew in `recover` may have been started; None: it was proven not to be.

        The journals of all keepers prove it when each was read whole and, since the runs of earlier daemons were settled
        (`settled`), nothing was started without an entry in one.
        """
        for connection, greeting in zip(self._pool.connections, self._greetings, strict=True):
            doubt = greeting.get("doubt", OLD_KEEPER)
            if doubt is not None:
                return f"{doubt} ({connection.folder})"
            if run_id in greeting["forgotten"] or run_id <= greeting["forgotten_to"]:
                return FORGOTTEN
        return None

    def settled(self) -> None:
        """Report to the keepers that no run of an earlier daemon is open any more."""
        self._greetings.clear()
        for connection in self._pool.connections:
            with connection.lock:
                self._pool.send(connection, line_of({"settled": True}))

    def launch(self, run_id: str, spec: ProcessSpec) -> None:
        """Order the start of a child; the observer receives the result. Raise StartError when no keeper is running."""
        self._pool.launch(run_id, spec)

    def end(self, run_id: str, cause: Cause) -> bool:
        """Order the kill ladder for a run. False when it has no child (any more)."""
        return self._pool.end(run_id, cause)

    def forget(self, run_ids: Iterable[str]) -> None:
        """Report to the keepers that the ends of runs are recorded."""
        self._pool.forget(run_ids)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the keepers; None when all of them are running and answer."""
        return self._pool.trouble

    @property
    def keepers(self) -> list[int]:
        """The process ids of the keepers that are running."""
        return [each.pid for each in self._pool.connections if each.pid is not None]

    def restore(self) -> list[str]:
        """Make the keepers create their removed files again; return what is wrong."""
        return [trouble for each in self._pool.connections if (trouble := each.restore_files()) is not None]

    def close(self) -> None:
        """End the thread; running children continue."""
        self._closing.set()
        self._pool.wake_up()
        if self.is_alive():
            self.join()
        if self._failover.close():  # otherwise a thread could write to what is closed here
            self._pool.close()

    def run(self) -> None:
        """Receive the reports of the keepers until closed."""
        while not self._closing.is_set():
            with self._working:
                self._round()
            pause = max(self._working.pause_seconds, self._serving.pause_seconds, self._reports.pause_seconds)
            if pause:
                self._closing.wait(pause)

    def _round(self) -> None:
        self._reports.deliver()
        ready = self._pool.epoll.poll(self._poll_seconds())
        self._pool.is_resting = False
        for descriptor, events in ready:
            connection = self._pool.by_descriptor.get(descriptor)
            if descriptor == self._pool.wake:
                os.eventfd_read(self._pool.wake)
            elif connection is not None and not self._closing.is_set():
                with self._serving:
                    self._serve(connection, events)
        self._failover.poll()
        if self._check_at is not None and self._clock.monotonic() >= self._check_at:
            self._check_at = None
            self._failover.check()

    def _poll_seconds(self) -> float | None:
        """Return the seconds until the next step is due; None: until a keeper reports or an order is sent."""
        self._pool.is_resting = True  # before the keepers are checked: an order that is sent now wakes the thread
        if not self._reports.undelivered and not any(
            each.is_awaited or self._failover.is_missing(each) for each in self._pool.connections
        ):
            self._check_at = None
            return None
        self._pool.is_resting = False
        now = self._clock.monotonic()
        if self._check_at is None:
            self._check_at = now + failover.CHECK_SECONDS
        if self._reports.undelivered:
            return 0.0
        return max(0.0, self._check_at - now)

    def _serve(self, connection: KeeperConnection, events: int) -> None:
        if events & select.EPOLLOUT:
            self._pool.flush(connection)
        if events & ~select.EPOLLOUT:
            reports = connection.receive()
            if reports is None:
                log.error("the keeper of %s is gone: another one takes its place", connection.folder)
                self._failover.replace(connection, is_silent=False)
            else:
                self._reports.handle(connection, reports)
