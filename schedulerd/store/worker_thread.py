"""A thread that runs calls one after the other. The caller gets a future, and decides how long to wait for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class WorkerThread:
    """The thread is started by `begin`, or with the first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def do(self, act: Callable[[], T]) -> Future[T]:
        """Call `act` in the thread; the future has its result or its error."""
        done: Future[T] = Future()

        def task() -> None:
            try:
                result = act()
            except BaseException as error:  # for the holder of the future
                done.set_exception(error)
            else:
                done.set_result(result)

        self.begin()
        self._tasks.put(task)
        return done

    def begin(self) -> None:
        """Start the thread unless it runs. Raise RuntimeError when the system has no more threads."""
        if self._thread is None:
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            thread.start()
            self._thread = thread

    def close(self) -> None:
        """End the thread after the calls that are queued; do not wait for that."""
        self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
