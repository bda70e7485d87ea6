"""Playing a stretch of time with the rules alone: what starts when, what is skipped, and how much runs at once.

Pure: jobs with their rules, how long each is expected to take, and a window go in; nothing is asked of a clock or a store.
An overlap is decided with the expected durations, and every run is expected to succeed.
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

PARTS = 48  # into which the window is cut for the load


@dataclass(frozen=True, slots=True)
class Actor:
    """A job in the play: how long its run takes, None when nothing is known, and its pause."""

    job: Job
    expected_seconds: float | None = None
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """One occurrence: when it starts, or at `at` why it does not (`skipped`)."""

    at: datetime
    job_id: str
    occurrence: Occurrence
    origin: Origin
    skipped: str | None = None
    expected_seconds: float | None = None

    @property
    def end(self) -> datetime:
        """Return when its run ends."""
        return self.at + timedelta(seconds=self.expected_seconds or 0.0)


@dataclass(frozen=True, slots=True)
class Load:
    """One part of the window: how many runs start in it, how many run at once at most and when, and how many on average."""

    at: datetime
    starts: int
    peak: int
    peak_at: datetime
    mean: float


@dataclass(slots=True)
class Play:
    """What was played: `scenes` in order; `is_whole` is false when there were more than `most`."""

    scenes: list[Scene] = field(default_factory=list)
    is_whole: bool = True


@dataclass(eq=False, slots=True)
class _Part:
    """What is known of an actor while it plays."""

    actor: Actor
    busy_until: datetime | None = None
    ends: dict[After, dict[str, datetime]] = field(default_factory=dict)


class _Stage:
    """The queue of what happens next, and who follows whom."""

    def __init__(self, actors: Sequence[Actor], start: datetime, end: datetime) -> None:
        self.start, self.end = start, end
        self.parts = {actor.job.job_id: _Part(actor) for actor in actors}
        self.queue: list[tuple[datetime, int, str, Occurrence, Origin]] = []
        self.order = itertools.count()
        self.followers: dict[str, list[tuple[str, After]]] = {}
        for actor in actors:
            for after in actor.job.trigger.events.after if actor.job.trigger else ():
                for job_id in after.jobs:
                    self.followers.setdefault(job_id, []).append((actor.job.job_id, after))
            self.first_of(actor.job)

    def first_of(self, job: Job) -> None:
        if job.trigger is None:
            return
        found = job.trigger.occurrence_after(job.trigger.settled_by(self.start - MICROSECOND))
        while found is not None and found.start_at < self.start:
            found = job.trigger.occurrence_after(found.scheduled_at)
        self.push(job.job_id, found, Origin.SCHEDULE)

    def push(self, job_id: str, occurrence: Occurrence | None, origin: Origin) -> None:
        if occurrence is not None and occurrence.start_at < self.end:
            heapq.heappush(self.queue, (occurrence.start_at, next(self.order), job_id, occurrence, origin))

    def play_next(self) -> Scene:
        at, _, job_id, occurrence, origin = heapq.heappop(self.queue)
        part = self.parts[job_id]
        scene = _scene(part, at, occurrence, origin)
        if scene.skipped is None:
            part.busy_until = max(scene.end, part.busy_until or scene.end)
            self.go_on_after(scene)
        trigger = part.actor.job.trigger
        if origin is Origin.SCHEDULE and trigger is not None:
            counted_from = scene.end if trigger.waits_for_end else occurrence.scheduled_at
            self.push(job_id, trigger.occurrence_after(counted_from), origin)
        return scene

    def go_on_after(self, scene: Scene) -> None:
        """Let the jobs start that follow a run which succeeds."""
        for job_id, after in self.followers.get(scene.job_id, ()):
            part = self.parts[job_id]
            ends = part.ends.setdefault(after, {})
            ends[scene.job_id] = scene.end
            due = follows(after, ends) if after.when is not When.FAILURE else None
            if due is not None and part.actor.job.trigger is not None:
                ends.clear()
                self.push(job_id, part.actor.job.trigger.occurrence_at(due), Origin.AFTER)


def play(actors: Sequence[Actor], start: datetime, end: datetime, most: int) -> Play:
    """Play the window [start, end) and return at most `most` scenes."""
    stage = _Stage([actor for actor in actors if actor.job.is_scheduled], start, end)
    played = Play()
    while stage.queue:
        if len(played.scenes) == most:
            played.is_whole = False
            break
        played.scenes.append(stage.play_next())
    played.scenes.sort(key=lambda scene: scene.at)
    return played


def _scene(part: _Part, at: datetime, occurrence: Occurrence, origin: Origin) -> Scene:
    """Return what becomes of one occurrence."""
    job, seconds, pause = part.actor.job, part.actor.expected_seconds, part.actor.pause
    busy_until = part.busy_until
    skipped = occurrence.skipped
    if pause is not None and not pause_is_over(pause.until, at):
        skipped = "the job is paused"
    elif skipped is None and busy_until is not None and busy_until > at:
        if job.overlap is Overlap.SKIP:
            skipped = "overlap: the run before is expected to go on"
        elif job.overlap is Overlap.QUEUE:
            at = busy_until
    return Scene(at, job.job_id, occurrence, origin, skipped, seconds)


def load_of(scenes: Sequence[Scene], start: datetime, end: datetime, parts: int = PARTS) -> list[Load]:
    """Return how much runs in each of `parts` equal parts of the window."""
    runs = [scene for scene in scenes if scene.skipped is None]
    step = (end - start) / parts
    edges = [start + step * number for number in range(parts + 1)]
    starts, busy = [0] * parts, [0.0] * parts
    for scene in runs:
        first = min(parts - 1, int((scene.at - start) / step))
        starts[first] += 1
        for number in range(first, parts):
            if edges[number] >= scene.end:
                break
            busy[number] += (min(scene.end, edges[number + 1]) - max(scene.at, edges[number])).total_seconds()
    peaks = _peaks(runs, edges)
    return [
        Load(edges[number], starts[number], *peaks[number], busy[number] / step.total_seconds()) for number in range(parts)
    ]


def _peaks(runs: Sequence[Scene], edges: Sequence[datetime]) -> list[tuple[int, datetime]]:
    """Return the most runs at once in each part; at one moment ends come before starts, and no run takes no time at all."""
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


def skips(scenes: Sequence[Scene]) -> Mapping[str, int]:
    """Return how many occurrences of each job are skipped in the play."""
    found: dict[str, int] = {}
    for scene in scenes:
        if scene.skipped is not None:
            found[scene.job_id] = found.get(scene.job_id, 0) + 1
    return found
