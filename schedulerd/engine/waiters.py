"""Who waits for the end of which run."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import NamedTuple

from ..core.models import Run
from .state import JobTable


class _Waiter(NamedTuple):
    future: Future[Run]
    follows: bool


class Waiters:
    """Futures by run; each is answered once, with the run as it ended, or as it is when nobody will see its end."""

    def __init__(self, table: JobTable) -> None:
        self._table = table
        self._futures: dict[str, list[_Waiter]] = {}

    def add(self, run_id: str, future: Future[Run], follows: bool = True) -> None:
        """Let `future` wait for a run that the table counts; when it `follows`, for the last attempt after it.

        The table's lock is held.
        """
        waiting = [each for each in self._futures.get(run_id, ()) if not each.future.done()]  # some give up
        self._futures[run_id] = [*waiting, _Waiter(future, follows)]

    def drop(self, run_id: str) -> None:
        """Forget who waits for a run; they are answered otherwise."""
        with self._table.lock:
            self._futures.pop(run_id, None)

    def move(self, run_id: str, to: str) -> None:
        """Let who waits for a run, and follows, wait for another one, which goes on with it. The table's lock is held."""
        waiting = self._futures.pop(run_id, None)
        if waiting is not None:
            self._futures.setdefault(to, []).extend(each for each in waiting if each.follows)
            self._futures[run_id] = [each for each in waiting if not each.follows]

    def tell(self, runs: Iterable[Run]) -> None:
        """Answer everybody who waits for one of the runs."""
        with self._table.lock:
            told = [(run, each.future) for run in runs for each in self._futures.pop(run.run_id, [])]
        for run, future in told:
            with suppress(InvalidStateError):  # who gave up, or was told at a stop that it waits, is not told again
                future.set_result(run)
