"""The operation `simulate`: what will start in a window of time, for all jobs, with the expected load."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from ..core.clock import Clock
from ..core.errors import BusyError, InvalidError
from ..core.models import Role, to_text
from ..core.stats import percentile
from ..engine.state import JobTable
from ..store.protocol import Store
from .local_times import in_years, local_text
from .progress import DURATIONS
from .roles import needs
from .timeline import SimulatedJob, SimulatedRun, Simulation, load_of, simulate, skips

MOST_SIMULATED = 50_000  # runs
MOST_LISTED = 10_000  # of these, one by one
LONGEST_WINDOW = timedelta(days=370)


class Simulations:
    """Simulates windows of time, one at a time."""

    def __init__(self, table: JobTable, store: Store, clock: Clock) -> None:
        self._table = table
        self._store = store
        self._clock = clock
        self._is_busy = threading.Lock()  # a simulation only computes: two at once would take twice as long

    @needs(Role.VIEWER)
    def simulate(self, start: datetime | None, end: datetime | None) -> dict[str, Any]:
        """Return what will start in a window for all jobs, with the expected load. The default is the next 24 hours.

        Raise InvalidError for a window that is empty or longer than LONGEST_WINDOW, BusyError during another simulation.
        """
        start = in_years(start or self._clock.now(), "from")
        end = in_years(end or start + timedelta(days=1), "to")
        if end <= start or end - start > LONGEST_WINDOW:
            message = f"Input should be later than from, by at most {LONGEST_WINDOW.days} days"
            raise InvalidError(["query", "to"], message, to_text(end))
        with self._table.lock:
            states = list(self._table.states.values())
        if not self._is_busy.acquire(blocking=False):
            raise BusyError("another simulation is in progress: try again in a moment")
        try:
            expected = self._expected_seconds([state.job.job_id for state in states])
            jobs = [SimulatedJob(state.job, expected.get(state.job.job_id), state.pause) for state in states]
            simulation = simulate(jobs, start, end, MOST_SIMULATED)
            return _view(simulation, start, end, len(states), self._table)
        finally:
            self._is_busy.release()

    def _expected_seconds(self, job_ids: list[str]) -> dict[str, float]:
        found = self._store.durations(job_ids, DURATIONS)
        return {job_id: percentile(seconds, 50) or 0.0 for job_id, seconds in found.items()}


def _view(simulation: Simulation, start: datetime, end: datetime, jobs: int, table: JobTable) -> dict[str, Any]:
    """Return a simulation as the API shows it."""
    runs = simulation.runs
    until = end if simulation.is_whole else runs[-1].at
    started = [run for run in runs if run.skipped is None]
    load = load_of(runs, start, until) if until > start else []
    busiest = max(load, key=lambda part: part.peak, default=None)
    return {
        "from": to_text(start),
        "to": to_text(end),
        "played_until": to_text(until),
        "is_whole": simulation.is_whole,
        "jobs": jobs,
        "starts": len(started),
        "skips": skips(runs),
        "busy_seconds": round(sum(run.expected_seconds or 0.0 for run in started), 3),
        "unknown_durations": sorted({run.job_id for run in started if run.expected_seconds is None}),
        "peak": {"running": busiest.peak, "at": to_text(busiest.peak_at)} if busiest else None,
        "load": [
            {"at": to_text(part.at), "starts": part.starts, "peak": part.peak, "mean": round(part.mean, 3)} for part in load
        ],
        "timeline": [_run_view(run, table) for run in runs[:MOST_LISTED]],
    }


def _run_view(run: SimulatedRun, table: JobTable) -> dict[str, Any]:
    state = table.states.get(run.job_id)
    return {
        "at": to_text(run.at),
        "local": local_text(run.at, state.job.timezone if state else str(UTC)),
        "job_id": run.job_id,
        "scheduled_at": to_text(run.occurrence.scheduled_at),
        "origin": run.origin,
        "will": "start" if run.skipped is None else "skip",
        "reasons": [*run.occurrence.reasons] if run.skipped in (None, run.occurrence.skipped) else [run.skipped],
        "expected_seconds": None if run.skipped else run.expected_seconds,
        "expected_end": None if run.expected_seconds is None or run.skipped else to_text(run.end),
    }
