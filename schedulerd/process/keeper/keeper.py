"""The loop of the keeper: receive orders, collect ends, escalate, check outputs, sync the journal, send reports.

Without a daemon it continues while it has children, or ends that the journal does not accept; then it exits. The next daemon
reads everything else from the journal. `process/wire.py` describes the orders and reports.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import suppress
from typing import Any

from ... import __version__
from ...core.clock import SystemClock
from .daemon_connection import CHUNK, DaemonConnection
from .folder import KeeperFolder
from .runs import AGAIN_SECONDS, KeeperRuns
from .steps import LASTS_SECONDS, Steps

STARTS_A_ROUND = 8  # then ends are collected
EXPECTING_SECONDS = 30.0  # how long to wait for the first daemon
LONGEST_POLL = 3600.0  # epoll_wait(2) accepts at most 24 days


class Keeper:
    """One keeper on its folder."""

    def __init__(self, own: KeeperFolder, listener: socket.socket, descriptors: int | None = None) -> None:
        """`descriptors` is the soft RLIMIT_NOFILE of children; None is that of the keeper."""
        self._clock = SystemClock()
        self._own, self._is_to_restore = own, False
        self._shortage: str | None = None  # as it was reported
        self._steps = Steps(self._clock)
        self._step = self._steps.step
        self._epoll = select.epoll()
        self._connection = DaemonConnection(self._clock, self._epoll, listener)
        self._orders = self._connection.orders
        self._report = self._connection.report
        self._is_expecting = True  # the daemon that has just started us
        self._signalled, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGHUP, self._on_sighup)
        self._epoll.register(self._signalled, select.EPOLLIN)
        self._runs = KeeperRuns(own.path, self._clock, self._epoll, self._report, descriptors)
        self._children, self._journal = self._runs.children, self._runs.journal

    def run(self) -> None:
        """Serve until no work is left and no daemon is connected."""
        while self._connection.is_awaited or self._children.by_run or self._orders or self._is_expecting or self._owes():
            with self._step("the round"):
                self._round()
            if pause := self._steps.pause_seconds():
                select.select([], [], [], pause)

    def _owes(self) -> bool:
        """Return whether ends wait for the next daemon that are not on the disk, while it can still find this keeper."""
        return self._runs.has_undelivered and os.path.isdir(self._own.path)

    def _round(self) -> None:
        ready = dict(self._epoll.poll(self._poll_seconds()))
        if not ready and self._is_expecting:
            self._is_expecting = False
        with self._step("the connection to the daemon"):
            self._receive(ready)
        with self._step("orders"):
            self._obey([self._orders.popleft() for _ in range(min(STARTS_A_ROUND, len(self._orders)))])
        with self._step("ends of runs"):
            self._collect_ends(list(ready))
        with self._step("timeouts"):
            self._children.escalate()
        with self._step("outputs"):
            self._runs.check_outputs(ready)
        with self._step("the journal"):
            self._sync()
        with self._step("reports"):
            self._report_shortage()
            self._connection.send()

    def _poll_seconds(self) -> float:
        """Return the seconds until the next step is due."""
        if self._orders:
            return 0.0
        now = self._clock.monotonic()
        waits = [self._children.wait_seconds()]
        waits += [each - now for each in (self._runs.cap_at, self._connection.accept_at) if each is not None]
        waits += [EXPECTING_SECONDS if self._is_expecting else None, LASTS_SECONDS if self._steps.failing else None]
        waits += [AGAIN_SECONDS if self._runs.unwritten is not None else None]
        return max(0.0, min([LONGEST_POLL, *(each for each in waits if each is not None)]))

    def _receive(self, ready: dict[int, int]) -> None:
        if self._is_to_restore:
            self._restore()
        if self._connection.receive(ready):
            self._sync(at_once=True)  # these reports reach no daemon; the greeting, which comes first, has the ends
            if self._connection.accept():
                self._greet()

    def _collect_ends(self, ready: list[int]) -> None:
        if self._signalled in ready:
            with suppress(BlockingIOError):
                os.read(self._signalled, CHUNK)
        self._children.collect_ends(ready)

    def _sync(self, at_once: bool = False) -> None:
        self._runs.sync(self._connection.is_there, bool(self._orders), at_once)

    # Removed files

    def _on_sighup(self, _number: int, _frame: object) -> None:
        self._is_to_restore = True

    def _restore(self) -> None:
        self._is_to_restore = False
        try:
            fresh = self._own.restore()
        except OSError as error:
            self._report({"trouble": f"the files of the keeper were removed and cannot be created again: {error}"})
            return
        if fresh is not None:
            self._connection.listen_on(fresh)

    # The daemon

    def _greet(self) -> None:
        self._is_expecting = False
        self._shortage = None
        self._runs.set_limits()
        journal = self._journal
        runs = {
            run_id: {
                "start": known.get("start"), "end": known.get("end"), "who": known.get("intent", {}).get("who"),
            }
            for run_id, known in journal.runs.items()
        }  # fmt: skip
        doubts = {"doubt": journal.doubt, "forgotten": journal.forgotten, "forgotten_to": journal.forgotten_to}
        self._report({"hello": __version__, "pongs": True, "runs": runs, **doubts})
        self._runs.on_greeted()
        for text in journal.troubles:
            self._report({"trouble": text})
        journal.troubles.clear()
        for child in self._children.by_run.values():
            if child.unkilled is not None:
                self._runs.report_unkilled(child.run_id, child.unkilled)
        if self._connection.trouble is not None:
            self._report({"trouble": self._connection.trouble})
            self._connection.trouble = None

    def _obey(self, orders: list[dict[str, Any]]) -> None:
        starts = [order for order in orders if "start" in order]
        if starts:
            self._runs.start(starts)
        for order in orders:
            if "end" in order:
                self._children.end(order["end"], order["cause"])
            elif "forget" in order:
                self._journal.forget(order["forget"])
            elif "ping" in order:
                self._report({"pong": True})
            elif "settled" in order:
                self._journal.settle()

    def _report_shortage(self) -> None:
        """Report what is lacking, when that has changed."""
        text = "; ".join(self._runs.shortages() + self._steps.failing) or None
        if text != self._shortage and self._connection.is_there:
            self._shortage = text
            self._report({"shortage": text})
