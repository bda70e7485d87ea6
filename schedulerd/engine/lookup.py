"""Where a run is looked up: in the ledger while that is well, in memory while it is away."""

from __future__ import annotations

import logging
from datetime import datetime

from ..core.errors import StoreError
from ..core.models import Run
from ..store.protocol import Store
from .state import JobTable

log = logging.getLogger(__name__)


def run_of(table: JobTable, store: Store, run_id: str) -> Run | None:
    """Return a run, or None when neither the ledger nor memory has it.

    While the ledger is well it is asked first: memory hears of an end a moment later. While it is away, memory is: what
    runs, waits, or has ended since. Raise StoreError when the ledger cannot be read and memory does not have the run.
    """
    known = table.find(run_id) if store.trouble is not None else None
    if known is not None:
        return known
    try:
        return store.run(run_id) or table.find(run_id)
    except StoreError:
        known = table.find(run_id)
        if known is None:
            raise
        return known


def last_success_at(table: JobTable, store: Store, run: Run, now: datetime) -> datetime | None:
    """Return up to when a run's job has done its work, as far as is known: None when it never succeeded.

    That is the occurrence that its newest success was for: what an incremental job has yet to do begins there, however
    late that success was started. One that was asked for by hand was for the time of its start. A success of a time that is
    still to come, since the clock was ahead, says nothing: then it is the newest of the others, or None while the ledger
    cannot be asked for that.
    """
    state = table.state_of(run)
    last = state.last_success if state is not None else None
    if last is not None and last.done_through > now:
        try:
            last = store.last_successes([run.job_id], now).get(run.job_id) if store.trouble is None else None
        except StoreError as error:
            log.warning("job %s: its last success is not known now: %s", run.job_id, error)
            last = None
    return None if last is None else last.done_through
