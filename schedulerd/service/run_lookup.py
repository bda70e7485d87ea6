"""Reads runs for callers: from memory while they are open, from the ledger when they have ended."""

from __future__ import annotations

from ..core.errors import NotFoundError, StoreAwayError
from ..core.models import UNFINISHED, Job, Run
from ..core.units import counted
from ..engine.state import JobTable, run_of
from ..store.protocol import Store


class RunLookup:
    """Finds runs in memory and in the ledger."""

    def __init__(self, table: JobTable, store: Store) -> None:
        self._table = table
        self._store = store

    def get(self, run_id: str) -> Run:
        """Return a run. Raise NotFoundError, or StoreAwayError when changes that wait for the store may contain it."""
        run = run_of(self._table, self._store, run_id)
        if run is not None:
            return self.current(run)
        waiting = self._store.backlog.changes
        if waiting:
            what = f"{counted(waiting, 'change')} not written to the store yet, which may include its end"
            raise StoreAwayError(f"the state of run {run_id} is unknown: there {'is' if waiting == 1 else 'are'} {what}")
        raise NotFoundError(f"there is no run {run_id}")

    def current(self, run: Run) -> Run:
        """Return a row of the ledger in its current state. The start of a run is written together with its end."""
        if run.status not in UNFINISHED:  # the ledger has an end a moment before memory has it
            return run
        state = self._table.state_of(run)
        going = state.running.get(run.run_id) if state is not None else None
        return going or self._table.ended.get(run.run_id, run)

    def is_open(self, run: Run) -> bool:
        """Return whether a run is queued or running in memory.

        Does not read the store. False does not imply that the run has ended: see `has_ended`.
        """
        with self._table.lock:
            state = self._table.state_of(run)
            if state is None:
                return False
            return run.run_id in state.running or any(each.run_id == run.run_id for each in state.queued or ())

    def has_ended(self, run: Run) -> bool:
        """Return whether a run has ended, according to the ledger or to memory. A deleted run has ended."""
        row = run_of(self._table, self._store, run.run_id)
        return row is None or row.status not in UNFINISHED

    def page(self, limit: int, before: str | None, statuses: list[str] | None, job_id: str | None) -> list[Run]:
        """Return a page of the runs of all jobs, or of one, newest first."""
        if job_id is None:
            rows = self._store.recent(limit, before, statuses)
        else:
            rows = self._store.history(job_id, limit, before, statuses)
        found = {run.run_id: run for run in (*self._unwritten(before, statuses, job_id), *map(self.current, rows))}
        return sorted(found.values(), key=lambda run: run.position, reverse=True)[:limit]

    def _unwritten(self, before: str | None, statuses: list[str] | None, job_id: str | None) -> list[Run]:
        """Return the runs in memory while changes wait for the store: the ledger may lack some of them."""
        if not self._store.backlog.changes:
            return []
        known = [run for run in self._table.known(job_id) if not statuses or run.status in statuses]
        last = run_of(self._table, self._store, before) if before else None
        if last is not None:
            return [run for run in known if run.position < last.position]
        return [run for run in known if not before or run.run_id < before]

    def job_of(self, run: Run) -> Job | None:
        """Return the job of a run; None when the configuration does not define it any more."""
        with self._table.lock:
            state = self._table.state_of(run)
            return state.job if state is not None else None

    def is_configured(self, job_id: str) -> bool:
        """Return whether the configuration in force defines a job."""
        return job_id in self._table.states
