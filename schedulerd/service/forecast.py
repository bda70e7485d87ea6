"""A window of time played through: what will start in it, for all jobs, with the load that is to be expected."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from ..core.clock import Clock
from ..core.errors import BusyError, InvalidError
from ..core.models import to_text
from ..core.stats import percentile
from ..engine.state import JobTable
from ..store.protocol import Store
from .runs import DURATIONS
from .simulation import Actor, Play, Scene, load_of, play, skips

MOST_SCENES = 50_000  # that are played
MOST_TOLD = 10_000  # ... and that are told one by one
YEARS = range(1900, 2501)  # that may be asked about
LONGEST_WINDOW = timedelta(days=370)


class Forecast:
    """Plays windows on behalf of callers."""

    def __init__(self, table: JobTable, store: Store, clock: Clock) -> None:
        self._table = table
        self._store = store
        self._clock = clock
        self._playing = threading.Lock()  # one simulation at a time: it is all calculation

    def simulate(self, start: datetime | None, end: datetime | None) -> dict[str, Any]:
        """Return what will start in a window (default: the next 24 hours), for all jobs, with the load that is expected.

        Raise InvalidError for a window that is empty or longer than LONGEST_WINDOW.
        """
        start = within_reach(start or self._clock.now(), "from")
        end = within_reach(end or start + timedelta(days=1), "to")
        if end <= start or end - start > LONGEST_WINDOW:
            message = f"Input should be later than from, by at most {LONGEST_WINDOW.days} days"
            raise InvalidError(["query", "to"], message, to_text(end))
        with self._table.lock:
            states = list(self._table.states.values())
        if not self._playing.acquire(blocking=False):
            raise BusyError("another simulation is being played: ask again in a moment")
        try:
            expected = self._expected([state.job.job_id for state in states])
            actors = [Actor(state.job, expected.get(state.job.job_id), state.pause) for state in states]
            played = play(actors, start, end, MOST_SCENES)
            return _played(played, start, end, len(states), self._table)
        finally:
            self._playing.release()

    def _expected(self, job_ids: list[str]) -> dict[str, float]:
        found = self._store.durations(job_ids, DURATIONS)
        return {job_id: percentile(seconds, 50) or 0.0 for job_id, seconds in found.items()}


def within_reach(at: datetime, name: str) -> datetime:
    """Return a time that is asked for. Raise InvalidError when it is too far away to be calculated with."""
    if at.year not in YEARS:
        message = f"Input should be a time in the years {YEARS.start} to {YEARS.stop - 1}"
        raise InvalidError(["query", name], message, to_text(at), "datetime")
    return at


def local_text(at: datetime, timezone: str) -> str:
    """Return an instant in ISO 8601 with the local time of a zone."""
    return at.astimezone(ZoneInfo(timezone)).isoformat()


def _played(played: Play, start: datetime, end: datetime, jobs: int, table: JobTable) -> dict[str, Any]:
    """Return a play as the API shows it."""
    until = end if played.is_whole else played.scenes[-1].at
    started = [scene for scene in played.scenes if scene.skipped is None]
    load = load_of(played.scenes, start, until) if until > start else []
    busiest = max(load, key=lambda part: part.peak, default=None)
    return {
        "from": to_text(start),
        "to": to_text(end),
        "played_until": to_text(until),
        "is_whole": played.is_whole,
        "jobs": jobs,
        "starts": len(started),
        "skips": skips(played.scenes),
        "busy_seconds": round(sum(scene.expected_seconds or 0.0 for scene in started), 3),
        "unknown_durations": sorted({scene.job_id for scene in started if scene.expected_seconds is None}),
        "peak": {"running": busiest.peak, "at": to_text(busiest.peak_at)} if busiest else None,
        "load": [
            {"at": to_text(part.at), "starts": part.starts, "peak": part.peak, "mean": round(part.mean, 3)} for part in load
        ],
        "timeline": [_scene_view(scene, table) for scene in played.scenes[:MOST_TOLD]],
    }


def _scene_view(scene: Scene, table: JobTable) -> dict[str, Any]:
    state = table.states.get(scene.job_id)
    return {
        "at": to_text(scene.at),
        "local": local_text(scene.at, state.job.timezone if state else str(UTC)),
        "job_id": scene.job_id,
        "scheduled_at": to_text(scene.occurrence.scheduled_at),
        "origin": scene.origin,
        "will": "start" if scene.skipped is None else "skip",
        "reasons": [*scene.occurrence.reasons] if scene.skipped in (None, scene.occurrence.skipped) else [scene.skipped],
        "expected_seconds": None if scene.skipped else scene.expected_seconds,
        "expected_end": None if scene.expected_seconds is None or scene.skipped else to_text(scene.end),
    }
