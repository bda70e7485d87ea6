"""One thread that does what is handed to it, one thing after the other; whoever hands it over waits as long as they like."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class WorkerThread:
    """The thread, which is started by `begin`, or with the first thing to do."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def do(self, act: Callable[[], T]) -> Future[T]:
        """Let `act` be called; the future has its result or its error."""
        done: Future[T] = Future()

        def task() -> None:
            try:
                result = act()
            except BaseException as error:  # it belongs to who waits
                done.set_exception(error)
            else:
                done.set_result(result)

        self.begin()
        self._tasks.put(task)
        return done

    def begin(self) -> None:
        """Start the thread, unless it is there. Raise RuntimeError when there is none to be had."""
        if self._thread is None:
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            thread.start()
            self._thread = thread

    def close(self) -> None:
        """Let the thread end when everything is done; nobody waits for that."""
        self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
