"""The reports of the keepers: each is passed on to the observer of the runs, or logged."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from ..core.clock import Clock
from ..core.errors import StartError
from ..core.loop_steps import GuardedStep
from .keeper_connection import KeeperConnection
from .keeper_pool import KeeperPool
from .spec import Cause, End, RunObserver
from .wire import end_of, moment_of

log = logging.getLogger(__name__)


class ReportHandler:
    """Handles reports; used by the supervisor's thread alone."""

    def __init__(self, pool: KeeperPool, clock: Clock, observer: RunObserver) -> None:
        self._pool = pool
        self._observer = observer
        self.undelivered: list[End] = []  # ends that the observer has not accepted
        self._handling = GuardedStep("the report of a keeper", clock)
        self._delivering = GuardedStep("the delivery of an end", clock)
        self._passed_on: set[str] = set()  # runs that one keeper could not journal and that another keeper was given

    @property
    def pause_seconds(self) -> float:
        """How long to wait after a delivery that failed."""
        return self._delivering.pause_seconds

    def handle(self, connection: KeeperConnection, reports: list[dict[str, Any]]) -> None:
        """Handle the reports of a keeper. One that fails does not stop the others."""
        ends: list[End] = []
        for report in reports:
            with self._handling:
                self._handle_one(connection, report, ends)
        if ends:
            self.on_ends(ends)

    def _handle_one(self, connection: KeeperConnection, report: dict[str, Any], ends: list[End]) -> None:
        if "started" in report:
            self.on_started(connection, report["started"], report["at"])
        elif "ended" in report:
            ends.append(end_of(report["ended"], report))
        elif "refused" in report and report.get("unwritten"):
            self._pass_on(connection, report["refused"], report["why"])
        elif "refused" in report:
            self._refuse(report["refused"], report["why"])
        elif "unkilled" in report:
            self._observer.on_child_unkilled(report["unkilled"], report["who"])
        elif "run" in report:
            log.error("run %s: %s", report["run"], report["trouble"])
        elif "trouble" in report:
            log.error("%s", report["trouble"])
        elif "shortage" in report:
            self._on_shortage(connection, report["shortage"])

    def on_started(self, connection: KeeperConnection, run_id: str, at: float) -> None:
        """Pass on a start. `at` is seconds since 1970."""
        connection.runs[run_id] = None
        self._observer.on_child_started(run_id, moment_of(at))

    def _on_shortage(self, connection: KeeperConnection, text: str | None) -> None:
        connection.shortage = text
        if text is not None:
            log.error("the keeper of %s: %s", connection.folder, text)
        else:
            log.info("the keeper of %s: no shortage any more", connection.folder)

    def on_ends(self, ends: list[End]) -> None:
        """Pass on ends."""
        for end in ends:
            self._pool.remove_run(end.run_id)
            self._passed_on.discard(end.run_id)
        self.undelivered += ends
        self.deliver()

    def deliver(self) -> None:
        """Pass the ends to the observer. When it fails they are kept and passed again: no other copy is in the daemon."""
        if not self.undelivered:
            return
        with self._delivering:
            self._observer.on_children_ended(self.undelivered)
            self.undelivered = []

    def _pass_on(self, connection: KeeperConnection, run_id: str, why: str) -> None:
        """Give a start that a keeper could not write into its journal to another keeper, once."""
        with connection.lock:
            order = connection.runs.pop(run_id, None)
            end_order = connection.end_orders.pop(run_id, None)
        if order is None or run_id in self._passed_on or self._pool.number == 1:
            self._refuse(run_id, why)
            return
        self._passed_on.add(run_id)
        self.move(connection, {run_id: order}, {run_id: end_order} if end_order is not None else {})

    def move(self, connection: KeeperConnection, orders: Mapping[str, bytes], end_orders: Mapping[str, bytes]) -> None:
        """Give starts that a keeper has not accepted, and the orders to end them, to another keeper."""
        for run_id, order in orders.items():
            try:
                self._pool.give(run_id, order, but=connection)
            except StartError as error:
                self._refuse(run_id, str(error))
            else:
                if run_id in end_orders:
                    self._pool.end(run_id, Cause(json.loads(end_orders[run_id])["cause"]))

    def _refuse(self, run_id: str, why: str) -> None:
        self._passed_on.discard(run_id)
        self._pool.remove_run(run_id)
        self._pool.of_run.pop(run_id, None)
        self._observer.on_child_refused(run_id, why)
