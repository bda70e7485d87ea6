"""A pool of threads for what the executor has to do: another thread takes the place of one that hangs."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from ..core.clock import Clock
from ..core.errors import StartError

log = logging.getLogger(__name__)

MOST_RELIEVED = 200  # threads that hang, each at the files of another job


class ThreadPool:
    """Threads, made when they are needed and at most `size`, that call what is put into their queue."""

    def __init__(self, name: str, size: int, clock: Clock) -> None:
        self.name = name
        self.size = size
        self._clock = clock
        self._at_work: dict[threading.Thread, float] = {}  # since when (monotonic)
        self._relieved: set[threading.Thread] = set()  # others have taken their places
        self._tasks: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._free = 0  # threads that wait for a task, or are on their way to
        self._untaken = 0  # tasks that no thread has taken

    def begin(self) -> None:
        """Have a thread, so that `submit` takes everything from now on. Raise StartError when there is none to be had."""
        with self._lock:
            try:
                self._grow()
            except RuntimeError as error:
                raise StartError(f"no thread can be started: {error}") from error

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function(*arguments)` in one of the threads, in the order of the calls.

        Raise RuntimeError when there is no thread, and none to be had.
        """
        with self._lock:
            if self._untaken >= self._free and len(self._threads) < self.size:
                self._grow()
            self._untaken += 1
        self._tasks.put((function, arguments))

    def _grow(self) -> None:
        """Start one more thread. When there is none to be had, the others have to do; without others, raise RuntimeError."""
        thread = threading.Thread(target=self._work, name=f"{self.name}-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
        else:
            self._threads.append(thread)
            self._free += 1

    def relieve(self, seconds: float) -> None:
        """Put another thread in the place of each that has been at one task for `seconds`; it ends with that task."""
        with self._lock:
            now = self._clock.monotonic()
            late = [thread for thread, since in self._at_work.items() if now - since >= seconds]
            for thread in late:
                if thread not in self._relieved and len(self._relieved) < MOST_RELIEVED:
                    self._relieved.add(thread)
                    self.size += 1
            for _ in range(min(self._untaken - self._free, self.size - len(self._threads))):
                self._grow()

    def close(self, seconds: float) -> list[str]:
        """Let the threads end when the queue is empty; return the names of those that still work after `seconds`."""
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
                self._untaken -= 1
                self._at_work[threading.current_thread()] = self._clock.monotonic()
            function, arguments = task
            try:
                function(*arguments)
            except Exception:  # a thread of the pool must not die: its seat would be gone for good
                log.exception("a task of the pool %s failed", self.name)
            with self._lock:
                if self._is_relieved(threading.current_thread()):
                    return
                self._free += 1

    def _is_relieved(self, thread: threading.Thread) -> bool:
        """Note the end of a thread's task, and of the thread when another one has its place. The lock is held."""
        del self._at_work[thread]
        if thread not in self._relieved:
            return False
        self._relieved.discard(thread)
        self.size -= 1
        if len(self._threads) <= self.size:  # there was no thread to be had for its place: it stays
            return False
        self._threads.remove(thread)
        return True
