"""The reasons why a queued run is not started yet, for callers. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..core.concurrency import MUTEX, FullPool, max_running
from ..core.misfires import pause_is_over
from ..core.models import Origin, Pause, Run, to_text
from ..core.retries import retry_at_of
from ..core.units import counted
from ..engine.run_queue import RunQueue, since
from ..engine.state import JobState, JobTable

MOST_NAMED = 5  # runs, in words


@dataclass(frozen=True, slots=True)
class WaitReason:
    """One reason: `kind` is `time`, `pause`, `load`, `overlap`, `pool` or `mutex`.

    `run_ids` are the runs that must end first. `until` is the latest time at which the reason ends, if known.
    """

    kind: str
    text: str
    run_ids: tuple[str, ...] = ()
    until: datetime | None = None
    name: str | None = None  # of the pool or mutex

    def view(self) -> dict[str, Any]:
        """Return the reason as the API shows it."""
        return {
            "kind": self.kind, "text": self.text, "run_ids": list(self.run_ids), "name": self.name,
            "until": None if self.until is None else to_text(self.until),
        }  # fmt: skip


def queued_view(run: Run, found: Sequence[WaitReason]) -> dict[str, Any]:
    """Return a queued run as the API shows it, with its wait reasons."""
    return {
        "run_id": run.run_id, "origin": run.origin, "attempt": run.attempt, "queued_at": to_text(run.queued_at),
        "scheduled_at": None if run.scheduled_at is None else to_text(run.scheduled_at),
        "waits_for": [each.view() for each in found],
    }  # fmt: skip


class WaitReasons:
    """Finds the wait reasons of queued runs."""

    def __init__(self, table: JobTable, run_queue: RunQueue) -> None:
        self._table = table
        self._run_queue = run_queue

    def of(self, state: JobState, run: Run, now: datetime) -> list[WaitReason]:
        """Return the wait reasons of a run of a job; none when it is not queued, or is about to start."""
        if state.job.only_if:
            self._run_queue.measure()
        with self._table.lock:
            is_queued = any(each.run_id == run.run_id for each in state.queued or ())
            return self._of_queued(state, run, now) if is_queued else []

    def _of_queued(self, state: JobState, run: Run, now: datetime) -> list[WaitReason]:
        found = [_time(run, now), _pause(state.pause, run, now), _load(self._run_queue, state, run), _overlap(state, run)]
        jobs = {each.run_id: each.job_id for each in self._table.running()}
        pools = [_pool(full, jobs) for full in self._run_queue.lacks(state, run)]
        return [each for each in (*found, *pools) if each is not None]


def _time(run: Run, now: datetime) -> WaitReason | None:
    at = retry_at_of(run)
    return WaitReason("time", f"the time of its retry, {to_text(at)}", until=at) if at is not None and at > now else None


def _pause(pause: Pause | None, run: Run, now: datetime) -> WaitReason | None:
    if pause is None or run.origin is Origin.MANUAL or pause_is_over(pause.until, now):
        return None
    at = f" at {to_text(pause.until)}" if pause.until is not None else ""
    why = f" (paused: {pause.reason})" if pause.reason else ""
    return WaitReason("pause", f"its job to be resumed{at}{why}", until=pause.until)


def _load(run_queue: RunQueue, state: JobState, run: Run) -> WaitReason | None:
    why = run_queue.shut(state.job, run)
    if why is None:
        return None
    latest = since(run) + timedelta(seconds=state.job.only_if_within_seconds)
    return WaitReason("load", f"the host ({why}), until {to_text(latest)}, when it is skipped", until=latest)


def _overlap(state: JobState, run: Run) -> WaitReason | None:
    most = max_running(state.job)
    if most is None or len(state.running) < most:
        return None
    running = list(state.running)
    before = [each.run_id for each in state.queued or () if since(each) < since(run)]
    is_one = len(before) == 1
    ahead = f"; {counted(len(before), 'run')} of the job {'is' if is_one else 'are'} queued before it" if before else ""
    return WaitReason("overlap", f"the end of {_named(running)} of its job{ahead}", (*running, *before))


def _pool(full: FullPool, jobs: dict[str, str]) -> WaitReason:
    is_mutex = full.name.startswith(MUTEX)
    text = full.name if is_mutex else f"pool {full.name} ({full.taken} of {full.limit} slots in use, it needs {full.needs})"
    if full.holders:
        text += ", held by " + _named([f"{run_id} of {jobs.get(run_id, 'a job')}" for run_id in full.holders])
    if full.kept_for is not None:
        text += f", and reserved for run {full.kept_for}, which was queued before it"
    run_ids = (*full.holders, *([full.kept_for] if full.kept_for is not None else []))
    kind, name = ("mutex", full.name.removeprefix(MUTEX)) if is_mutex else ("pool", full.name)
    return WaitReason(kind, text, run_ids, name=name)


def _named(runs: Sequence[str]) -> str:
    more = [f"{len(runs) - MOST_NAMED} more"] if len(runs) > MOST_NAMED else []
    return ("run " if len(runs) == 1 else "runs ") + _listed([*runs[:MOST_NAMED], *more])


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
