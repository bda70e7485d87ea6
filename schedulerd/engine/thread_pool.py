"""A pool of threads for the tasks of the executor. It replaces threads that hang."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from ..core.clock import Clock
from ..core.errors import StartError

log = logging.getLogger(__name__)

MOST_REPLACED = 200  # threads that hang, each with the files of another job


class ThreadPool:
    """At most `size` threads that perform the tasks of one queue. They are started when they are needed."""

    def __init__(self, name: str, size: int, clock: Clock) -> None:
        self.name = name
        self.size = size
        self._clock = clock
        self._busy: dict[threading.Thread, float] = {}  # start of its task (monotonic)
        self._replaced: set[threading.Thread] = set()  # hung threads that others have replaced
        self._tasks: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._free = 0  # threads that wait for a task, or will do so next
        self._pending = 0  # tasks that no thread has begun

    def begin(self) -> None:
        """Start the first thread, so that `submit` never fails. Raise StartError when no thread can be started."""
        with self._lock:
            try:
                self._grow()
            except RuntimeError as error:
                raise StartError(f"no thread can be started: {error}") from error

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function(*arguments)` in one of the threads, in the order of the calls.

        Raise RuntimeError when the pool has no thread and none can be started.
        """
        with self._lock:
            if self._pending >= self._free and len(self._threads) < self.size:
                self._grow()
            self._pending += 1
        self._tasks.put((function, arguments))

    def _grow(self) -> None:
        """Start one more thread. Raise RuntimeError when that fails and the pool has no other one."""
        thread = threading.Thread(target=self._work, name=f"{self.name}-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
        else:
            self._threads.append(thread)
            self._free += 1

    def replace_hung(self, seconds: float) -> None:
        """Add a thread for each one that has been busy with one task for `seconds`. The hung one ends with its task."""
        with self._lock:
            now = self._clock.monotonic()
            late = [thread for thread, since in self._busy.items() if now - since >= seconds]
            for thread in late:
                if thread not in self._replaced and len(self._replaced) < MOST_REPLACED:
                    self._replaced.add(thread)
                    self.size += 1
            for _ in range(min(self._pending - self._free, self.size - len(self._threads))):
                self._grow()

    def close(self, seconds: float) -> list[str]:
        """End the threads when the queue is empty. Return the names of those that are still busy after `seconds`."""
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._tasks.put(None)
        for thread in threads:
            thread.join(seconds / len(threads))
        return [thread.name for thread in threads if thread.is_alive()]

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            with self._lock:
                self._free -= 1
                self._pending -= 1
                self._busy[threading.current_thread()] = self._clock.monotonic()
            function, arguments = task
            try:
                function(*arguments)
            except Exception:  # a thread of the pool must not end: the pool would shrink permanently
                log.exception("a task of the pool %s failed", self.name)
            with self._lock:
                if self._is_replaced(threading.current_thread()):
                    return
                self._free += 1

    def _is_replaced(self, thread: threading.Thread) -> bool:
        """Record the end of a task. Return whether its thread ends, because it was replaced. The lock is held."""
        del self._busy[thread]
        if thread not in self._replaced:
            return False
        self._replaced.discard(thread)
        self.size -= 1
        if len(self._threads) <= self.size:  # no thread could be started to replace it: it remains
            return False
        self._threads.remove(thread)
        return True
