"""Running runs that were ordered to end before they end themselves: by a person, or because a newer run takes their place.

An order may come before the run's process is there, or between two steps of its start. So it is remembered until the run is
over: whoever starts the run asks first, and an order that nobody took is given again at the next tick.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from ..core.clock import Clock
from ..core.errors import StoppingError
from ..core.loop_steps import GuardedStep
from ..core.models import Job, Result, Run, Status
from ..process.spec import Cause
from .state import JobTable


class Launcher(Protocol):
    """What the scheduler needs of the executor."""

    def launch(self, job: Job, run: Run) -> None:
        """Start a run that is in the ledger."""
        ...

    def forget(self, run_ids: list[str]) -> None:
        """Hear that the ends of runs are in the ledger."""
        ...

    def end(self, run_id: str, cause: Cause) -> bool:
        """Let a run end before it does so itself. False when it has no process and no function, not yet or not any more."""
        ...


@dataclass(slots=True)
class _Order:
    run: Run
    cause: Cause
    why: str
    is_taken: bool = False


class StopOrders:
    """The orders to end, by run."""

    def __init__(self, table: JobTable, clock: Clock) -> None:
        self._table = table
        self._giving = GuardedStep("an order to end a run", clock)
        self._orders: dict[str, _Order] = {}
        self._launcher: Launcher | None = None

    def launch_with(self, launcher: Launcher) -> None:
        """Name who ends runs."""
        self._launcher = launcher

    @property
    def trouble(self) -> str | None:
        """What is in the way of an order, in words, or None."""
        return self._giving.trouble

    def order(self, run: Run, cause: Cause, why: str) -> None:
        """Let a running run end; the first order stays. The table's lock is not held: processes are signalled."""
        with self._table.lock:
            order = self._orders.setdefault(run.run_id, _Order(run, cause, why))
        if not order.is_taken:
            self._give(order)

    def give_again(self) -> None:
        """Give the orders that nobody took: called at each tick."""
        if not self._orders:
            return
        with self._table.lock:
            self._orders = {run_id: order for run_id, order in self._orders.items() if self._is_running(order.run)}
            left = [order for order in self._orders.values() if not order.is_taken]
        for order in left:
            self._give(order)

    def refuse(self, run: Run) -> None:
        """Raise StoppingError when a run that is about to start was ordered to end. The table's lock is held."""
        order = self._orders.get(run.run_id)
        if order is not None:
            raise StoppingError(order.why)

    def result(self, run: Run, result: Result) -> Result:
        """Return how a run ended in the end, and forget its order: ended by an order it is cancelled, for that reason."""
        with self._table.lock:
            order = self._orders.pop(run.run_id, None)
        if order is None or result.status is Status.SUCCESS:
            return result
        return replace(result, status=Status.CANCELLED, message=order.why)

    def _is_running(self, run: Run) -> bool:
        state = self._table.state_of(run)
        return state is not None and run.run_id in state.running

    def _give(self, order: _Order) -> None:
        with self._giving:
            order.is_taken = self._launcher is not None and self._launcher.end(order.run.run_id, order.cause)
