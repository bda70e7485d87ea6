"""Computes the course of a window of time: what starts, what is skipped, and how much runs at once. Pure.

The input is the jobs with their rules and expected durations. Overlap is decided by the expected durations, and each run is
expected to succeed.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ..core.misfires import follows, pause_is_over
from ..core.models import MICROSECOND, Job, Origin, Overlap, Pause
from ..core.trigger import After, Occurrence, When

SLICES = 48  # into which the window is divided for the load


@dataclass(frozen=True, slots=True)
class SimulatedJob:
    """A job with the expected duration of its runs (None when unknown) and its pause."""

    job: Job
    expected_seconds: float | None = None
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """One occurrence, which starts at `at`, or is skipped then for the reason `skipped`."""

    at: datetime
    job_id: str
    occurrence: Occurrence
    origin: Origin
    skipped: str | None = None
    expected_seconds: float | None = None

    @property
    def end(self) -> datetime:
        """Return the expected end of the run."""
        return self.at + timedelta(seconds=self.expected_seconds or 0.0)


@dataclass(frozen=True, slots=True)
class LoadSlice:
    """The load in one slice of the window: runs that start, most runs at once and when, runs at once on average."""

    at: datetime
    starts: int
    peak: int
    peak_at: datetime
    mean: float


@dataclass(slots=True)
class Simulation:
    """The runs in order of time. `is_whole` is false when the simulation ended at its limit."""

    runs: list[SimulatedRun] = field(default_factory=list)
    is_whole: bool = True


@dataclass(eq=False, slots=True)
class _Progress:
    """The state of a job during the simulation."""

    simulated: SimulatedJob
    busy_until: datetime | None = None
    ends: dict[After, dict[str, datetime]] = field(default_factory=dict)


class _EventQueue:
    """The occurrences to come, and the jobs that depend on others."""

    def __init__(self, jobs: Sequence[SimulatedJob], start: datetime, end: datetime) -> None:
        self.start, self.end = start, end
        self.progress = {each.job.job_id: _Progress(each) for each in jobs}
        self.queue: list[tuple[datetime, int, str, Occurrence, Origin]] = []
        self.order = itertools.count()
        self.followers: dict[str, list[tuple[str, After]]] = {}
        for each in jobs:
            for after in each.job.trigger.events.after if each.job.trigger else ():
                for job_id in after.jobs:
                    self.followers.setdefault(job_id, []).append((each.job.job_id, after))
            self.push_first(each.job)

    def push_first(self, job: Job) -> None:
        if job.trigger is None:
            return
        found = job.trigger.occurrence_after(job.trigger.settled_by(self.start - MICROSECOND))
        while found is not None and found.start_at < self.start:
            found = job.trigger.occurrence_after(found.scheduled_at)
        self.push(job.job_id, found, Origin.SCHEDULE)

    def push(self, job_id: str, occurrence: Occurrence | None, origin: Origin) -> None:
        if occurrence is not None and occurrence.start_at < self.end:
            heapq.heappush(self.queue, (occurrence.start_at, next(self.order), job_id, occurrence, origin))

    def run_next(self) -> SimulatedRun:
        at, _, job_id, occurrence, origin = heapq.heappop(self.queue)
        progress = self.progress[job_id]
        run = _decided(progress, at, occurrence, origin)
        if run.skipped is None:
            progress.busy_until = max(run.end, progress.busy_until or run.end)
            self.push_dependents(run)
        trigger = progress.simulated.job.trigger
        if origin is Origin.SCHEDULE and trigger is not None:
            counted_from = run.end if trigger.waits_for_end else occurrence.scheduled_at
            self.push(job_id, trigger.occurrence_after(counted_from), origin)
        return run

    def push_dependents(self, run: SimulatedRun) -> None:
        """Add the jobs that start after a run that succeeds."""
        for job_id, after in self.followers.get(run.job_id, ()):
            progress = self.progress[job_id]
            ends = progress.ends.setdefault(after, {})
            ends[run.job_id] = run.end
            due = follows(after, ends) if after.when is not When.FAILURE else None
            if due is not None and progress.simulated.job.trigger is not None:
                ends.clear()
                self.push(job_id, progress.simulated.job.trigger.occurrence_at(due), Origin.AFTER)


def simulate(jobs: Sequence[SimulatedJob], start: datetime, end: datetime, most: int) -> Simulation:
    """Simulate the window [start, end), up to `most` runs."""
    events = _EventQueue([each for each in jobs if each.job.is_scheduled], start, end)
    simulation = Simulation()
    while events.queue:
        if len(simulation.runs) == most:
            simulation.is_whole = False
            break
        simulation.runs.append(events.run_next())
    simulation.runs.sort(key=lambda run: run.at)
    return simulation


def _decided(progress: _Progress, at: datetime, occurrence: Occurrence, origin: Origin) -> SimulatedRun:
    """Return the run of an occurrence, by pause, blackout and overlap."""
    job, seconds, pause = progress.simulated.job, progress.simulated.expected_seconds, progress.simulated.pause
    busy_until = progress.busy_until
    skipped = occurrence.skipped
    if pause is not None and not pause_is_over(pause.until, at):
        skipped = "the job is paused"
    elif skipped is None and busy_until is not None and busy_until > at:
        if job.overlap is Overlap.SKIP:
            skipped = "overlap: the previous run is expected to be running"
        elif job.overlap is Overlap.QUEUE:
            at = busy_until
    return SimulatedRun(at, job.job_id, occurrence, origin, skipped, seconds)


def load_of(simulated: Sequence[SimulatedRun], start: datetime, end: datetime, slices: int = SLICES) -> list[LoadSlice]:
    """Return the load in each of `slices` equal parts of the window."""
    runs = [run for run in simulated if run.skipped is None]
    step = (end - start) / slices
    edges = [start + step * number for number in range(slices + 1)]
    starts, busy = [0] * slices, [0.0] * slices
    for run in runs:
        first = min(slices - 1, int((run.at - start) / step))
        starts[first] += 1
        for number in range(first, slices):
            if edges[number] >= run.end:
                break
            busy[number] += (min(run.end, edges[number + 1]) - max(run.at, edges[number])).total_seconds()
    peaks = _peaks(runs, edges)
    return [
        LoadSlice(edges[number], starts[number], *peaks[number], busy[number] / step.total_seconds())
        for number in range(slices)
    ]


def _peaks(runs: Sequence[SimulatedRun], edges: Sequence[datetime]) -> list[tuple[int, datetime]]:
    """Return the most runs at once in each slice, and when. At one instant, ends precede starts."""
    ends = [max(run.end, run.at + MICROSECOND) for run in runs]
    changes = sorted([(run.at, 1) for run in runs] + [(end, -1) for end in ends])
    peaks, now, place = [], 0, 0
    for begin, edge in itertools.pairwise(edges):
        peak, peak_at = now, begin
        while place < len(changes) and changes[place][0] < edge:
            now += changes[place][1]
            if now > peak:
                peak, peak_at = now, changes[place][0]
            place += 1
        peaks.append((peak, peak_at))
    return peaks


def skips(runs: Sequence[SimulatedRun]) -> Mapping[str, int]:
    """Return the number of skipped occurrences by job."""
    found: dict[str, int] = {}
    for run in runs:
        if run.skipped is not None:
            found[run.job_id] = found.get(run.job_id, 0) + 1
    return found
