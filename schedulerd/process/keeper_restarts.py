"""Have keepers summoned again by threads of their own: that takes seconds, and nobody else is to wait for it."""

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

AGAIN_SECONDS = 2.0  # between two tries to have a keeper again


class Restarts:
    """The keepers that are being summoned. All but `has_come` is for one thread, which asks and takes what comes of it."""

    def __init__(self, has_come: Callable[[], None]) -> None:
        """`has_come` is called, by other threads, when there is something in `outcomes`."""
        self._has_come = has_come
        self._outcomes: queue.SimpleQueue[tuple[KeeperConnection, Connected | str]] = queue.SimpleQueue()
        self._threads: dict[KeeperConnection, threading.Thread] = {}
        self._lacks_threads = False
        self._closing = threading.Event()

    def __contains__(self, link: object) -> bool:
        """Tell whether somebody sees to it that this keeper is there again."""
        return link in self._threads

    def begin(self, link: KeeperConnection, is_silent: bool, wait: float = 0.0) -> None:
        """Find or start a keeper in `wait` seconds, however often that is tried; one that `is_silent` is killed before."""
        thread = threading.Thread(target=self._try, args=(link, is_silent, wait), name=f"summoner-{link.place}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # it is tried again at the next look
            if not self._lacks_threads:
                log.error("no keeper can be summoned yet: %s", error)
            self._lacks_threads = True
        else:
            self._lacks_threads = False
            self._threads[link] = thread

    def outcomes(self) -> Iterator[tuple[KeeperConnection, Connected | str]]:
        """Take what has come: a keeper's connection and greeting, or what is in the way for now, in words."""
        while not self._outcomes.empty():
            link, found = self._outcomes.get()
            if not isinstance(found, str):
                self._threads.pop(link).join()
            yield link, found

    def close(self) -> bool:
        """Try no more. Return whether all threads have ended, so that `has_come` is called no more."""
        self._closing.set()
        for thread in self._threads.values():
            thread.join(AGAIN_SECONDS)
        while not self._outcomes.empty():
            _, found = self._outcomes.get()
            if not isinstance(found, str):
                found[0].close()
        return not any(thread.is_alive() for thread in self._threads.values())

    def _try(self, link: KeeperConnection, is_silent: bool, wait: float) -> None:
        told = None
        self._closing.wait(wait)
        while not self._closing.is_set():
            found: Connected | str
            try:
                if is_silent:
                    link.summoner.kill()
                    is_silent = False
                found = link.summoner.summon()
            except Exception as error:  # whatever it is, it may be gone in a while
                found = str(error) if isinstance(error, StartError) else f"the keeper of {link.folder}: {error!r}"
            if self._closing.is_set():
                if not isinstance(found, str):
                    found[0].close()
            elif found != told:
                self._outcomes.put((link, found))
                self._has_come()
            if not isinstance(found, str):
                return
            told = found
            self._closing.wait(AGAIN_SECONDS)
