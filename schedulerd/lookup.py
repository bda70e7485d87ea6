"""Where a run is looked up: in the ledger while that is well, in memory while it is away."""

from __future__ import annotations

from .board import Board
from .errors import StoreError
from .model import Run
from .store import Store


def run_of(board: Board, store: Store, run_id: str) -> Run | None:
    """Return a run, or None when neither the ledger nor memory has it.

    While the ledger is well it is asked first: memory hears of an end a moment later. While it is away, memory is: what
    runs, waits, or has ended since. Raise StoreError when the ledger cannot be read and memory does not have the run.
    """
    known = board.find(run_id) if store.trouble is not None else None
    if known is not None:
        return known
    try:
        return store.run(run_id) or board.find(run_id)
    except StoreError:
        known = board.find(run_id)
        if known is None:
            raise
        return known
