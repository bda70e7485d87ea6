"""The planner's thread. Each iteration runs the tick, hands over due jobs and waits.

An error in one of these steps does not stop the others. The thread also notifies the systemd watchdog, but only after an
iteration in which all due jobs could be handed over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from ..core.clock import Clock, ClockJumpDetector, Jump
from ..core.loop_steps import GuardedStep
from ..core.misfires import OVERDUE
from ..core.units import format_duration
from .due import DueJob, Undecided, portions
from .planned_job import ERROR_DELAY
from .timetable import Timetable

log = logging.getLogger(__name__)


class Planner:
    """Hands over due jobs, in a thread that never runs a job.

    `on_due(jobs, now)` must be quick. It returns the undecided ones, which are handed over again later. When it raises an
    exception, all of them are. `on_tick(now)` is called at each iteration, at least once a second. `on_jump(jump, starts)`
    is called after a step of the clock, with the next start of each job. `on_alive()` is called after each iteration
    without errors.
    """

    def __init__(
        self,
        timetable: Timetable,
        clock: Clock,
        on_due: Callable[[list[DueJob], datetime], list[Undecided]],
        on_tick: Callable[[datetime], None] = lambda _now: None,
        on_jump: Callable[[Jump, Mapping[str, datetime]], None] = lambda _jump, _starts: None,
        on_alive: Callable[[], None] = lambda: None,
    ) -> None:
        self.timetable = timetable
        self._clock = clock
        self._on_due, self._on_tick, self._on_jump, self._on_alive = on_due, on_tick, on_jump, on_alive
        self._jumps = ClockJumpDetector(clock)
        self._checked_at = clock.monotonic()
        self._ticking = GuardedStep("the tick of the planner", clock)
        self._feeding = GuardedStep("the watchdog notification", clock)
        self._planning = GuardedStep("the planner", clock)
        self._deciding = GuardedStep("the decision about what is due", clock)
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)

    @property
    def trouble(self) -> str | None:
        """Return the error that prevents jobs from starting on time, as a message, or None."""
        return "; ".join(filter(None, (self._loop_trouble, self.timetable.trouble))) or None

    @property
    def _loop_trouble(self) -> str | None:
        return self._planning.trouble or self._deciding.trouble

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. No job is handed over after this returns."""
        self._is_stopping = True
        self.timetable.wakeup.set()
        if self._thread.is_alive():
            self._thread.join()

    def run_pending(self) -> None:
        """Hand over all jobs that are due now."""
        self.timetable.run_pending(self._check_clock())
        for portion in portions(self.timetable.take_due()):
            self.timetable.put_back(self._hand_over(portion, self.timetable.tick_at))

    def _hand_over(self, portion: list[DueJob], now: datetime) -> list[Undecided]:
        """Return the undecided jobs: after an error all of this portion. Other portions are not affected."""
        try:
            undecided = self._on_due(portion, now)
        except Exception as error:
            self._deciding.failed(error)
            return [each.all_left(now + ERROR_DELAY) for each in portion]
        self._deciding.succeeded()
        return undecided

    def _check_clock(self) -> str | None:
        """Return why jobs may be overdue now: the clock was set forward, the host slept, or the daemon was delayed."""
        checked_at, self._checked_at = self._checked_at, self._clock.monotonic()
        jump = self._jumps.poll()
        if jump is not None:
            log.warning("%s", jump)
            self._on_jump(jump, self.timetable.step(jump))
            return str(jump)
        held_up = self._checked_at - checked_at
        return f"the daemon was held up for {format_duration(held_up)}" if held_up > OVERDUE.total_seconds() else None

    def _run(self) -> None:
        wakeup = self.timetable.wakeup
        while not self._is_stopping:
            with self._ticking:
                self._on_tick(self._clock.now())
            next_at = None
            with self._planning:
                self.run_pending()
                next_at = self.timetable.next_time()
            if self._loop_trouble is None:
                with self._feeding:
                    self._on_alive()
            if pause := self._planning.pause_seconds:
                next_at = self._clock.now() + timedelta(seconds=pause)
            self._clock.wait(wakeup, next_at)
            wakeup.clear()
