"""Keepers that are gone or silent: each is replaced, and its successor receives what it had not accepted."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from typing import Any

from ..core.clock import Clock
from .keeper_connection import KeeperConnection
from .keeper_pool import PING_CHECKS, KeeperPool
from .keeper_restarts import Restarts
from .reports import ReportHandler
from .spec import End
from .wire import end_of, line_of

log = logging.getLogger(__name__)

CHECK_SECONDS = 2.5  # between two checks of keepers from which a report is awaited
SILENT_CHECKS = 7  # a keeper that was silent at so many checks is replaced: after 15 s at least


class Failover:
    """Replaces keepers; used by the supervisor's thread alone."""

    def __init__(self, pool: KeeperPool, reports: ReportHandler, clock: Clock) -> None:
        self._pool = pool
        self._reports = reports
        self._clock = clock
        self._restarts = Restarts(pool.wake_up)

    def check(self) -> None:
        """Ping the keepers that have been silent for a while, and replace those that do not answer."""
        for connection in self._pool.connections:
            silence = connection.count_silence()
            if silence == PING_CHECKS:
                with connection.lock:
                    self._pool.send(connection, line_of({"ping": True}))
            elif silence >= SILENT_CHECKS:
                text = "the keeper of %s has not answered for %g s: it is killed, and another one takes its place"
                log.error(text, connection.folder, (SILENT_CHECKS - 1) * CHECK_SECONDS)
                self.replace(connection, is_silent=True)
            elif self.is_missing(connection):
                self._restarts.begin(connection, is_silent=False)

    def is_missing(self, connection: KeeperConnection) -> bool:
        """Return whether a keeper is gone and no thread restarts it: the system had no thread to give."""
        return connection.socket is None and connection not in self._restarts

    def replace(self, connection: KeeperConnection, is_silent: bool) -> None:
        """Restart a keeper that is gone, or kill one that is silent and restart it."""
        self._pool.drop(connection)
        wait = connection.count_loss(self._clock.monotonic())
        if wait:
            text = "the connection to the keeper of %s was lost %d times in a row: next attempt in %g s"
            log.error(text, connection.folder, connection.losses, wait)
        self._restarts.begin(connection, is_silent, wait)

    def poll(self) -> None:
        """Process the results of restarts."""
        for connection, result in self._restarts.results():
            if isinstance(result, str):
                log.error("%s", result)
                self._reassign_held(connection, result)
            else:
                self._resume(connection, *result)

    def close(self) -> bool:
        """End the restarts. Close each keeper that has no runs. Return whether all threads have ended."""
        for connection in self._pool.connections:
            connection.drop()
            if not connection.runs and connection not in self._restarts:
                connection.starter.reap()  # it has no work, and exits
        return self._restarts.close()

    def _reassign_held(self, connection: KeeperConnection, why: str) -> None:
        """Give the starts that were held for a keeper that cannot be restarted to the other keepers; none was sent."""
        with connection.lock:
            connection.trouble = why
            held = {
                run_id: order
                for run_id in connection.held
                if (order := connection.runs.pop(run_id, None)) is not None
            }  # fmt: skip
            end_orders = {run_id: connection.end_orders.pop(run_id) for run_id in held if run_id in connection.end_orders}
            connection.held.clear()
        self._reports.move(connection, held, end_orders)

    def _resume(self, connection: KeeperConnection, made: socket.socket, greeting: Mapping[str, Any]) -> None:
        """Continue with the successor of a keeper, which has read from the journal what its predecessor did."""
        known, doubt = greeting["runs"], greeting.get("doubt")
        is_whole = doubt in (None, connection.doubt)  # then the predecessor accepted no start that is not in the journal
        with connection.lock:
            held = set(connection.held)
            self._pool.use(connection, made, greeting)
            unaccepted = {run_id: order for run_id, order in connection.runs.items() if run_id not in known and order}
            for run_id, order in unaccepted.items():
                if is_whole or run_id in held:
                    self._pool.send(connection, order)  # never accepted: an intent is written before the start
                else:
                    connection.runs[run_id] = None
            for order in connection.end_orders.values():
                self._pool.send(connection, order)
            recorded = [run_id for run_id, one in known.items() if one["end"] and run_id not in self._pool.of_run]
            if recorded:
                self._pool.send(connection, line_of({"forget": recorded}))
        log.info("the keeper of %s is running again", connection.folder)
        ends = [end_of(run_id, one["end"]) for run_id, one in known.items() if one["end"] and run_id in connection.runs]
        if ends:
            self._reports.on_ends(ends)
        self._catch_up(connection, known, doubt)

    def _catch_up(self, connection: KeeperConnection, known: Mapping[str, Any], doubt: str | None) -> None:
        """Pass on the starts that the predecessor did not report, and the runs that it has lost."""
        lost = f"its keeper was killed, and whether it was started is unknown: {doubt or 'its journal is gone'}"
        for run_id, order in list(connection.runs.items()):
            if run_id in known and order is not None and known[run_id]["start"]:
                self._reports.on_started(connection, run_id, known[run_id]["start"]["at"])
            elif run_id not in known and order is None:
                self._reports.on_ends([End(run_id, None, self._clock.now(), lost=lost)])
