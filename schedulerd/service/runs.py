"""Single runs: as they are now, how far they are, when they will be done, and what they have written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..actions.registry import PREPARE
from ..core.clock import Clock
from ..core.errors import BusyError, ConflictError, GoneError, NotFoundError, SecretError, StoreAwayError, StoreError
from ..core.models import UNFINISHED, Job, Run, Secret, Status
from ..core.stats import percentile
from ..core.units import counted
from ..engine.lookup import run_of
from ..engine.state import JobTable
from ..process.output import OutputFolder, OutputRange
from ..process.output_reader import Reader
from ..process.result_file import read_result, result_path
from ..secrets.job_archive import JobArchive
from ..secrets.job_secrets import known_secrets
from ..store.protocol import Store
from .serializers import run_view

log = logging.getLogger(__name__)

MOST_FOLLOWERS = 50  # of outputs, over all doors
DURATIONS = 20  # past runs whose median is the expected duration

Sources = Callable[[], Iterable[str | Secret]]


class Runs:
    """Knows runs from memory while they go on, from the ledger when they are over, and their output from its folder."""

    def __init__(
        self, table: JobTable, store: Store, clock: Clock, output: OutputFolder, archive: JobArchive, sources: Sources
    ) -> None:
        """`sources` returns the URLs of the configuration in force, whose passwords are masked in any output."""
        self._table = table
        self._store = store
        self._clock = clock
        self._output = output
        self._archive = archive
        self._sources = sources
        self._followers = 0

    def get(self, run_id: str) -> Run:
        """Return a run. Raise NotFoundError, or StoreAwayError when it may be among what waits for the history."""
        run = run_of(self._table, self._store, run_id)
        if run is not None:
            return self.as_it_is(run)
        waiting = self._store.backlog.changes
        if waiting:
            what = f"{counted(waiting, 'change')} waiting for the history, its end may be among them"
            raise StoreAwayError(f"run {run_id} cannot be told now: there {'is' if waiting == 1 else 'are'} {what}")
        raise NotFoundError(f"there is no run {run_id}")

    def as_it_is(self, run: Run) -> Run:
        """Return a run of the ledger as memory knows it while it goes on: when it started is written when it ends."""
        if run.status not in UNFINISHED:  # memory hears of an end a moment after the ledger has it
            return run
        state = self._table.state_of(run)
        going = state.running.get(run.run_id) if state is not None else None
        return going or self._table.ended.get(run.run_id, run)

    def is_in_sight(self, run: Run) -> bool:
        """Return whether memory still has a run to come or going on. Quick; False may also mean that it waits elsewhere."""
        with self._table.lock:
            state = self._table.state_of(run)
            if state is None:
                return False
            return run.run_id in state.running or any(each.run_id == run.run_id for each in state.queued or ())

    def is_over(self, run: Run) -> bool:
        """Return whether a run has ended, as the ledger says, or memory; a row that is gone was over."""
        row = run_of(self._table, self._store, run.run_id)
        return row is None or row.status not in UNFINISHED

    def page(self, limit: int, before: str | None, statuses: list[str] | None, job_id: str | None) -> list[dict[str, Any]]:
        """Return a page of the runs of all jobs, or of one, newest first."""
        if job_id is None:
            rows = self._store.recent(limit, before, statuses)
        else:
            rows = self._store.history(job_id, limit, before, statuses)
        found = {run.run_id: run for run in (*self._unwritten(before, statuses, job_id), *map(self.as_it_is, rows))}
        return [run_view(found[run_id]) for run_id in _newest_first(found)[:limit]]

    def _unwritten(self, before: str | None, statuses: list[str] | None, job_id: str | None) -> list[Run]:
        """Return what memory knows while changes wait to be written: the ledger may not have some of it."""
        if not self._store.backlog.changes:
            return []
        known = [run for run in self._table.known(job_id) if not statuses or run.status in statuses]
        last = run_of(self._table, self._store, before) if before else None
        if last is not None:
            return [run for run in known if run.position < last.position]
        return [run for run in known if not before or run.run_id < before]

    def show(self, run_id: str) -> dict[str, Any]:
        """Return a run with its output's size and, while it goes on, how far it is. Raise NotFoundError."""
        run = self.get(run_id)
        kept = self._output.kept(run.run_id)
        output = {"output_bytes": kept.size, "output_dropped_bytes": kept.dropped, "output_removed": self._is_removed(run)}
        return {**self._going([run])[0], **output}

    def running(self) -> list[dict[str, Any]]:
        """Return what runs now, oldest first, with how far it is."""
        return self._going(self._table.running())

    def _going(self, runs: Sequence[Run]) -> list[dict[str, Any]]:
        jobs = sorted({run.job_id for run in runs if run.status is Status.RUNNING})
        past = self._past(jobs)
        return [{**run_view(run), **self._outlook(run, percentile(past.get(run.job_id, ()), 50))} for run in runs]

    def _past(self, job_ids: list[str]) -> dict[str, list[float]]:
        """Return how long jobs took; of a ledger that is away, nothing: then only a run's own word tells how far it is."""
        if self._store.trouble is not None:
            return {}
        try:
            return self._store.durations(job_ids, DURATIONS)
        except StoreError as error:
            log.debug("how long runs take is not known now: %s", error)
            return {}

    def _outlook(self, run: Run, expected_seconds: float | None) -> dict[str, Any]:
        if run.status is not Status.RUNNING:
            return {"running_seconds": None, "progress": None, "eta_seconds": None}
        elapsed = max(0.0, (self._clock.now() - (run.started_at or run.queued_at)).total_seconds())
        state = self._table.state_of(run)
        path = self._output.path_of(run.run_id)
        progress = read_result(result_path(path, state.job)).progress if state is not None else None
        left = seconds_left(elapsed, progress, expected_seconds)
        return {
            "running_seconds": round(elapsed, 3),
            "progress": progress,
            "eta_seconds": None if left is None else round(left, 3),
        }

    # Output

    def output_size(self, run: Run) -> int:
        """Return how many bytes a run has written so far."""
        return self._output.size(run.run_id)

    def stretch(self, run: Run, offset: int) -> OutputRange:
        """Return the first stretch of output at or after `offset`.

        Raise GoneError when it was removed or replaced, and ConflictError when it cannot be opened now.
        """
        if self._is_removed(run):
            written = run.details.get("output_bytes")
            size = f" of {counted(written, 'byte')}" if written else ""
            what = f"the output{size} of run {run.run_id}"
            if instead := self._output.instead(run.run_id):
                raise GoneError(f"{what} was replaced by somebody: {instead}, and is not read")
            raise GoneError(f"{what} was removed: by `cleanup`, or by somebody else")
        try:
            return self._output.stretch(run.run_id, offset)
        except BlockingIOError:
            held = f"a process of its user has a lease on the output of run {run.run_id}, so that nobody can open it"
            raise ConflictError(f"{held}: try again when that process has ended, or in a minute") from None

    def _is_removed(self, run: Run) -> bool:
        """Return whether somebody has removed the output that a run has written, or may be writing."""
        if not self._output.is_gone(run.run_id):
            return False
        if run.status not in UNFINISHED:
            return bool(run.details.get("output_bytes") or run.details.get("output_error"))
        job = self._job_of(run)
        return run.status is Status.RUNNING and run.started_at is not None and job is not None and job.action in PREPARE

    def reader(self, run: Run, offset: int) -> Reader:
        """Return a reader of a run's output from `offset` on, which masks the secrets of its job: all that it ever named."""
        job = self._job_of(run)
        job = self._archive.removed_job(run.job_id) if job is None else self._archive.with_past_secrets(job)
        return Reader(self._output, run.run_id, known_secrets(job, self._sources()), offset)

    def check_open(self, run: Run) -> None:
        """Raise SecretError when an output is for admins only.

        It may quote the contents of a database, or have a secret in it that cannot be known any more, since its job is gone.
        """
        if self._archive.quotes_database(run.job_id):
            raise SecretError("it may quote the contents of a database")
        if run.job_id not in self._table.states:
            self._archive.require_secrets(run.job_id)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Be one of those who follow an output. Called in the loop's thread. Raise BusyError when there are too many."""
        if self._followers >= MOST_FOLLOWERS:
            raise BusyError(f"{MOST_FOLLOWERS} follow the output of runs already: ask again in a moment, or without follow")
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1

    def _job_of(self, run: Run) -> Job | None:
        with self._table.lock:
            state = self._table.state_of(run)
            return state.job if state is not None else None


def _newest_first(runs: Mapping[str, Run]) -> list[str]:
    return sorted(runs, key=lambda run_id: runs[run_id].position, reverse=True)


def seconds_left(elapsed: float, progress: float | None, expected: float | None) -> float | None:
    """Return how long a run will still take: by its own word (`progress`, 0 to 1), else as long as it usually does."""
    if progress:
        return elapsed / progress * (1 - progress)
    return None if expected is None else max(0.0, expected - elapsed)
