"""Stop orders: end running runs early, because a caller cancelled them or a newer run replaces them.

An order may be given before the process of the run exists, or between two steps of its start. Therefore, it is kept until
the run has ended. The start of the run checks for it, and an order that the launcher did not accept is repeated at the next
tick.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..core.clock import Clock
from ..core.errors import StoppingError
from ..core.loop_steps import GuardedStep
from ..core.models import Result, Run, Status
from ..process.spec import Cause
from .launcher import Launcher
from .state import JobTable


@dataclass(slots=True)
class _Order:
    run: Run
    cause: Cause
    why: str
    is_accepted: bool = False


class StopOrders:
    """The stop orders of running runs."""

    def __init__(self, table: JobTable, clock: Clock, launcher: Launcher) -> None:
        self._table = table
        self._launcher = launcher
        self._giving = GuardedStep("an order to end a run", clock)
        self._orders: dict[str, _Order] = {}

    @property
    def trouble(self) -> str | None:
        """Return the error of the last order, as a message, or None."""
        return self._giving.trouble

    def order(self, run: Run, cause: Cause, why: str) -> None:
        """End a running run. Its first order remains in force. The table's lock is not held: processes are signalled."""
        with self._table.lock:
            order = self._orders.setdefault(run.run_id, _Order(run, cause, why))
        if not order.is_accepted:
            self._give(order)

    def give_again(self) -> None:
        """Repeat the orders that were not accepted. Called at each tick."""
        if not self._orders:
            return
        with self._table.lock:
            self._orders = {run_id: order for run_id, order in self._orders.items() if self._is_running(order.run)}
            left = [order for order in self._orders.values() if not order.is_accepted]
        for order in left:
            self._give(order)

    def refuse(self, run: Run) -> None:
        """Raise StoppingError when a run that is about to start was ordered to end. The table's lock is held."""
        order = self._orders.get(run.run_id)
        if order is not None:
            raise StoppingError(order.why)

    def result(self, run: Run, result: Result) -> Result:
        """Apply the order of a run to its result, and forget the order: unless the run succeeded, it is `cancelled`."""
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
            order.is_accepted = self._launcher.end(order.run.run_id, order.cause)
