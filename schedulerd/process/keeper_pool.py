"""The keepers of a daemon, and which run belongs to which of them. Orders are sent from here.

No caller waits for a keeper: what a keeper does not accept at once is sent later by the supervisor's thread.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.clock import Clock
from ..core.errors import StartError
from .keeper_connection import KeeperConnection
from .spec import Cause, ProcessSpec
from .wire import line_of, start_order

MOST_KEEPERS = 2  # one starts processes as fast as one core can
PING_CHECKS = 2  # a keeper that was silent at so many checks is pinged


class KeeperPool:
    """The connections to all keepers below `folder`: two keepers, or one on a single core."""

    def __init__(self, folder: str, clock: Clock) -> None:
        self._clock = clock
        os.makedirs(folder, 0o700, exist_ok=True)
        self.number = min(MOST_KEEPERS, os.cpu_count() or 1)
        self.connections = [KeeperConnection(os.path.join(folder, str(place))) for place in range(self.number)]
        self.connections += [KeeperConnection(path) for path in _others(folder, self.number)]  # of a daemon that had more
        self.of_run: dict[str, KeeperConnection] = {}  # until the end of the run is recorded
        self.by_descriptor: dict[int, KeeperConnection] = {}
        self.is_resting = False  # nothing is awaited of any keeper: an order must wake the thread
        self.epoll = select.epoll()
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.epoll.register(self.wake, select.EPOLLIN)
        self._next = 0

    def launch(self, run_id: str, spec: ProcessSpec) -> None:
        """Order the start of a child. Raise StartError when no keeper is running."""
        self.give(run_id, start_order(run_id, spec))

    def give(self, run_id: str, order: bytes, but: KeeperConnection | None = None) -> None:
        """Send a start to the next keeper that answers, else to one that may answer soon; never to the keeper `but`."""
        self._next += 1
        connections = [self.connections[(self._next + place) % self.number] for place in range(self.number)]
        connections = [each for each in connections if each is not but]
        connections.sort(key=lambda each: (each.socket is None, each.silence >= PING_CHECKS))
        for each in connections:
            with each.lock:
                if each.socket is None and each.trouble is not None:
                    continue
                each.runs[run_id], self.of_run[run_id] = order, each
                if each.socket is None:
                    each.held.add(run_id)
                self.send(each, order)
                return
        trouble = connections[0].trouble if connections else but and (but.trouble or but.shortage)
        raise StartError(f"cannot start the process: no keeper is running: {trouble}")

    def end(self, run_id: str, cause: Cause) -> bool:
        """Order the kill ladder for a run. False when it has no child (any more)."""
        connection = self.of_run.get(run_id)
        if connection is None:
            return False
        with connection.lock:
            if run_id not in connection.runs:
                return False
            order = connection.end_orders.setdefault(run_id, line_of({"end": run_id, "cause": cause}))
            self.send(connection, order)
        return True

    def forget(self, run_ids: Iterable[str]) -> None:
        """Report to the keepers that the ends of runs are recorded; for a keeper that is gone, to its successor."""
        by_connection: dict[KeeperConnection, list[str]] = {}
        for run_id in run_ids:
            connection = self.of_run.pop(run_id, None)
            if connection is not None:
                by_connection.setdefault(connection, []).append(run_id)
        for connection, mine in by_connection.items():
            with connection.lock:
                self.send(connection, line_of({"forget": mine}))

    def send(self, connection: KeeperConnection, order: bytes) -> None:
        """Send an order without waiting. The lock of the connection is held."""
        connection.send(order)
        if connection.socket is not None and connection.unsent:
            self.epoll.modify(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        if self.is_resting and connection.is_awaited:
            self.wake_up()

    def flush(self, connection: KeeperConnection) -> None:
        """Send what the keeper accepts now."""
        with connection.lock:
            connection.flush()
            if connection.socket is not None and not connection.unsent:
                self.epoll.modify(connection.socket.fileno(), select.EPOLLIN)

    def use(self, connection: KeeperConnection, made: socket.socket, greeting: Mapping[str, Any]) -> None:
        """Use a new socket from now on. The lock is held, or no other thread knows the connection yet."""
        self.epoll.register(made.fileno(), select.EPOLLIN)  # first: a socket that is not read must not be used
        connection.use(made, bool(greeting.get("pongs")), self._clock.monotonic())
        connection.doubt = greeting.get("doubt")
        self.by_descriptor[made.fileno()] = connection

    def drop(self, connection: KeeperConnection) -> None:
        """Stop using the socket of a keeper that is gone or silent."""
        if connection.socket is not None:
            del self.by_descriptor[connection.socket.fileno()]
        connection.drop()

    def remove_run(self, run_id: str) -> None:
        """Drop the orders of a run that has ended or was refused."""
        connection = self.of_run.get(run_id)
        if connection is not None:
            connection.runs.pop(run_id, None)
            connection.end_orders.pop(run_id, None)

    def wake_up(self) -> None:
        """Wake the supervisor's thread."""
        os.eventfd_write(self.wake, 1)

    def close(self) -> None:
        """Close the descriptors."""
        self.epoll.close()
        os.close(self.wake)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the keepers; None when all of them are running and answer."""
        found = []
        for each in self.connections:
            if each.socket is None:
                found.append(each.trouble or f"the keeper of {each.folder} is gone and is being restarted")
            elif each.silence >= PING_CHECKS:
                found.append(f"the keeper of {each.folder} does not answer")
            elif each.shortage is not None:
                found.append(f"the keeper of {each.folder}: {each.shortage}")
        return "; ".join(found) or None


def _others(folder: str, number: int) -> list[str]:
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.isdigit() and int(name) >= number]
