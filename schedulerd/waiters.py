"""Who waits for the end of which run."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future

from .board import Board
from .model import Run


class Waiters:
    """Futures by run; each is answered once, with the run as it ended, or as it is when nobody will see its end."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._futures: dict[str, list[Future[Run]]] = {}

    def add(self, run_id: str, future: Future[Run]) -> None:
        """Let `future` wait for a run that the board counts. The board's lock is held."""
        self._futures.setdefault(run_id, []).append(future)

    def drop(self, run_id: str) -> None:
        """Forget who waits for a run; they are answered otherwise."""
        with self._board.lock:
            self._futures.pop(run_id, None)

    def move(self, run_id: str, to: str) -> None:
        """Let who waits for a run wait for another one, which goes on with it. The board's lock is held."""
        waiting = self._futures.pop(run_id, None)
        if waiting is not None:
            self._futures.setdefault(to, []).extend(waiting)

    def tell(self, runs: Iterable[Run]) -> None:
        """Answer everybody who waits for one of the runs."""
        with self._board.lock:
            told = [(run, future) for run in runs for future in self._futures.pop(run.run_id, [])]
        for run, future in told:
            if not future.done():  # who was told at a stop that it waits is not told again
                future.set_result(run)
