"""The planner's thread: at each turn the tick, then what is due, then a wait; neither part stops the other one.

The systemd watchdog is fed from here, and only after a turn in which what is due could be handed over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from ..core.clock import Clock
from ..core.loop_steps import GuardedStep


class Loop:
    """Calls `on_tick(now)` and `run_pending()` at each turn, and `on_alive()` when `is_well()` after it.

    Turns are a second apart at most, and begin at once when `next_time()` has come or `wakeup` is set.
    """

    def __init__(
        self,
        clock: Clock,
        wakeup: threading.Event,
        on_tick: Callable[[datetime], None],
        run_pending: Callable[[], None],
        next_time: Callable[[], datetime | None],
        on_alive: Callable[[], None],
    ) -> None:
        self._ticking = GuardedStep("the tick of the planner", clock)
        self._telling = GuardedStep("the word to the watchdog", clock)
        self._planning = GuardedStep("the planner", clock)
        self.deciding = GuardedStep("the decision about what is due", clock)
        self._clock, self._wakeup = clock, wakeup
        self._on_tick, self._run_pending, self._next_time, self._on_alive = on_tick, run_pending, next_time, on_alive
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)

    @property
    def trouble(self) -> str | None:
        """Return what keeps the loop from starting jobs on time, in words, or None."""
        return self._planning.trouble or self.deciding.trouble

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wakeup.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            with self._ticking:
                self._on_tick(self._clock.now())
            next_at = None
            with self._planning:
                self._run_pending()
                next_at = self._next_time()
            if self.trouble is None:
                with self._telling:
                    self._on_alive()
            if pause := self._planning.pause_seconds:
                next_at = self._clock.now() + timedelta(seconds=pause)
            self._clock.wait(self._wakeup, next_at)
            self._wakeup.clear()
