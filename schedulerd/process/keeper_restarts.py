"""Restarts of keepers, each in a thread of its own: a restart takes seconds, and the supervisor must not wait for it."""

from __future__ import annotations

import logging
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..core.errors import StartError
from .keeper_connection import KeeperConnection

log = logging.getLogger(__name__)

Connected = tuple[socket.socket, dict[str, Any]]  # a connection and its greeting

AGAIN_SECONDS = 2.0  # between two attempts to restart a keeper


class Restarts:
    """The keepers that are being restarted. Used by the supervisor's thread, which polls the results."""

    def __init__(self, on_result: Callable[[], None]) -> None:
        """`on_result` is called by the threads when `results` has a new one."""
        self._on_result = on_result
        self._results: queue.SimpleQueue[tuple[KeeperConnection, Connected | str]] = queue.SimpleQueue()
        self._threads: dict[KeeperConnection, threading.Thread] = {}
        self._lacks_threads = False
        self._closing = threading.Event()

    def __contains__(self, connection: object) -> bool:
        """Return whether a thread restarts this keeper."""
        return connection in self._threads

    def begin(self, connection: KeeperConnection, is_silent: bool, wait: float = 0.0) -> None:
        """Connect to a keeper, or start one, after `wait` seconds; retry until that succeeds. Kill a silent one first."""
        thread = threading.Thread(
            target=self._try, args=(connection, is_silent, wait), name=f"keeper-{connection.place}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # retried at the next check
            if not self._lacks_threads:
                log.error("a keeper cannot be restarted yet: %s", error)
            self._lacks_threads = True
        else:
            self._lacks_threads = False
            self._threads[connection] = thread

    def results(self) -> Iterator[tuple[KeeperConnection, Connected | str]]:
        """Yield the results so far: socket and greeting of a keeper, or why it cannot be restarted yet."""
        while not self._results.empty():
            connection, result = self._results.get()
            if not isinstance(result, str):
                self._threads.pop(connection).join()
            yield connection, result

    def close(self) -> bool:
        """Stop the attempts. Return whether all threads have ended, so that `on_result` is not called any more."""
        self._closing.set()
        for thread in self._threads.values():
            thread.join(AGAIN_SECONDS)
        while not self._results.empty():
            _, result = self._results.get()
            if not isinstance(result, str):
                result[0].close()
        return not any(thread.is_alive() for thread in self._threads.values())

    def _try(self, connection: KeeperConnection, is_silent: bool, wait: float) -> None:
        reported = None
        self._closing.wait(wait)
        while not self._closing.is_set():
            result: Connected | str
            try:
                if is_silent:
                    connection.starter.kill()
                    is_silent = False
                result = connection.starter.connect()
            except Exception as error:  # of any kind: it may be temporary
                result = str(error) if isinstance(error, StartError) else f"the keeper of {connection.folder}: {error!r}"
            if self._closing.is_set():
                if not isinstance(result, str):
                    result[0].close()
            elif result != reported:
                self._results.put((connection, result))
                self._on_result()
            if not isinstance(result, str):
                return
            reported = result
            self._closing.wait(AGAIN_SECONDS)
