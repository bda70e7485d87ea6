"""Single runs: as they are now, how far they are, when they will be done, and what they have written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .board import Board
from .clock import Clock
from .errors import BusyError, NotFoundError
from .figures import percentile
from .keepsakes import Keepsakes
from .model import UNFINISHED, Job, Run, Secret, Status
from .output import OutputFolder, Stretch
from .reading import Reader
from .results import read_result, result_path
from .secrets import known_secrets
from .store import Store
from .views import run_view

MOST_FOLLOWERS = 50  # of outputs, over all doors
DURATIONS = 20  # past runs whose median is the expected duration

Sources = Callable[[], Iterable[str | Secret]]


class Runs:
    """Knows runs from memory while they go on, from the ledger when they are over, and their output from its folder."""

    def __init__(
        self, board: Board, store: Store, clock: Clock, output: OutputFolder, keepsakes: Keepsakes, sources: Sources
    ) -> None:
        """`sources` returns the URLs of the configuration in force, whose passwords are masked in any output."""
        self._board = board
        self._store = store
        self._clock = clock
        self._output = output
        self._keepsakes = keepsakes
        self._sources = sources
        self._followers = 0

    def get(self, run_id: str) -> Run:
        """Return a run. Raise NotFoundError."""
        run = self._store.run(run_id)
        if run is None:
            raise NotFoundError(f"there is no run {run_id}")
        return self.as_it_is(run)

    def as_it_is(self, run: Run) -> Run:
        """Return a run of the ledger as memory knows it while it goes on: when it started is written when it ends."""
        if run.status not in UNFINISHED:  # memory hears of an end a moment after the ledger has it
            return run
        state = self._board.state_of(run)
        return run if state is None else state.running.get(run.run_id, run)

    def is_in_sight(self, run: Run) -> bool:
        """Return whether memory still has a run to come or going on. Quick; False may also mean that it waits elsewhere."""
        with self._board.lock:
            state = self._board.state_of(run)
            if state is None:
                return False
            return run.run_id in state.running or any(each.run_id == run.run_id for each in state.queued or ())

    def is_over(self, run: Run) -> bool:
        """Return whether a run has ended, as the ledger says; a row that is gone was over."""
        row = self._store.run(run.run_id)
        return row is None or row.status not in UNFINISHED

    def page(self, limit: int, before: str | None, statuses: list[str] | None, job_id: str | None) -> list[dict[str, Any]]:
        """Return a page of the runs of all jobs, or of one, newest first."""
        if job_id is None:
            rows = self._store.recent(limit, before, statuses)
        else:
            rows = self._store.history(job_id, limit, before, statuses)
        return [run_view(self.as_it_is(run)) for run in rows]

    def show(self, run_id: str) -> dict[str, Any]:
        """Return a run with its output's size and, while it goes on, how far it is. Raise NotFoundError."""
        run = self.get(run_id)
        kept = self._output.kept(run.run_id)
        return {**self._going([run])[0], "output_bytes": kept.size, "output_dropped_bytes": kept.dropped}

    def running(self) -> list[dict[str, Any]]:
        """Return what runs now, oldest first, with how far it is."""
        return self._going(self._board.running())

    def _going(self, runs: Sequence[Run]) -> list[dict[str, Any]]:
        jobs = sorted({run.job_id for run in runs if run.status is Status.RUNNING})
        past = self._store.durations(jobs, DURATIONS)
        return [{**run_view(run), **self._outlook(run, percentile(past.get(run.job_id, ()), 50))} for run in runs]

    def _outlook(self, run: Run, expected_seconds: float | None) -> dict[str, Any]:
        if run.status is not Status.RUNNING:
            return {"running_seconds": None, "progress": None, "eta_seconds": None}
        elapsed = max(0.0, (self._clock.now() - (run.started_at or run.queued_at)).total_seconds())
        state = self._board.state_of(run)
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

    def stretch(self, run: Run, offset: int) -> Stretch:
        """Return the first stretch of output at or after `offset`."""
        return self._output.stretch(run.run_id, offset)

    def reader(self, run: Run, offset: int) -> Reader:
        """Return a reader of a run's output from `offset` on, which masks the secrets of its job: all that it ever named."""
        job = self._job_of(run)
        job = self._keepsakes.retired(run.job_id) if job is None else self._keepsakes.with_past(job)
        return Reader(self._output, run.run_id, known_secrets(job, self._sources()), offset)

    def check_masks(self, run: Run) -> None:
        """Raise SecretError when an output may hold a secret that cannot be known any more, since its job is gone."""
        if run.job_id not in self._board.states:
            self._keepsakes.check(run.job_id)

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
        with self._board.lock:
            state = self._board.state_of(run)
            return state.job if state is not None else None


def seconds_left(elapsed: float, progress: float | None, expected: float | None) -> float | None:
    """Return how long a run will still take: by its own word (`progress`, 0 to 1), else as long as it usually does."""
    if progress:
        return elapsed / progress * (1 - progress)
    return None if expected is None else max(0.0, expected - elapsed)
