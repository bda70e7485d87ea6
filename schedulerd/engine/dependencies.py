"""Dependencies: jobs that start after other jobs.

They have no storage of their own. An end is a row of the ledger, and so is the run that it started: its `scheduled_at` is
the time of that end. When the daemon starts, the ends that were not followed yet are therefore those without such a row.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ..core.misfires import follows, is_wanted
from ..core.models import ENDED, Job, Origin, Run, Status
from ..core.retention import FOLLOWED_FOR
from ..core.retries import is_followed, outcome_of
from ..core.trigger import After
from ..store.protocol import Store
from .timetable import Timetable

MOST_ENDS = 100  # of one job, which are checked when the daemon starts


@dataclass(eq=False)
class _Dependency:
    """One `after` of one job, and the ends that it has received since the job was last due."""

    job: Job
    after: After
    ends: dict[str, Run] = field(default_factory=dict)

    def accept(self, run: Run) -> datetime | None:
        """Accept an end. Return when the job is due, or None when it is not due yet."""
        if run.finished_at is None or not is_wanted(self.after, outcome_of(run)):
            return None
        self.ends[run.job_id] = run
        return follows(self.after, {job_id: end.finished_at for job_id, end in self.ends.items() if end.finished_at})


class Dependencies:
    """Makes jobs due when the runs that they follow have ended."""

    def __init__(self, timetable: Timetable, store: Store) -> None:
        self._timetable = timetable
        self._store = store
        self._all: list[_Dependency] = []
        self._after: dict[str, list[_Dependency]] = {}  # by the job that ends
        self._lock = threading.Lock()  # ends are reported in any thread of the store

    def replace(self, jobs: Mapping[str, Job]) -> None:
        """Replace the dependencies by those of a new set of jobs. Unchanged ones keep the ends that they have received."""
        before = {(dependency.job.job_id, dependency.after): dependency.ends for dependency in self._all}
        dependencies = [
            _Dependency(job, after, before.get((job.job_id, after), {}))
            for job in jobs.values()
            if job.is_scheduled and job.trigger is not None
            for after in job.trigger.events.after
        ]
        after: dict[str, list[_Dependency]] = {}
        for dependency in dependencies:
            for job_id in dependency.after.jobs:
                after.setdefault(job_id, []).append(dependency)
        self._all, self._after = dependencies, after

    def follow(self, ended: Iterable[Run]) -> None:
        """Make the jobs due that follow the ended runs, in the order of the ends."""
        if not self._after:
            return
        for run in sorted(ended, key=lambda run: run.finished_at or run.queued_at):
            for dependency in self._after.get(run.job_id, ()):
                self._follow(dependency, run)

    def follow_what_was_missed(self, now: datetime) -> None:
        """Make the jobs due that follow ends which no daemon has followed yet. Called once, when the daemon starts."""
        if not self._all:
            return
        known = self._store.jobs()
        for dependency in self._all:
            since = max(known[dependency.job.job_id].planned_since, now - FOLLOWED_FOR)
            for run in self._not_followed(dependency, since, now):
                self._follow(dependency, run)

    def _not_followed(self, dependency: _Dependency, since: datetime, now: datetime) -> list[Run]:
        """Return the ends later than `since` that no run in the ledger follows, in their order."""
        followed = self._store.followed(dependency.job.job_id, since)
        latest = max(followed, default=now)
        if dependency.after.needs_all:  # an end that was replaced by a later one of the same job has no row of its own
            since = max((at for at in followed if at <= now), default=since)
        ends = [
            run
            for job_id in dependency.after.jobs
            for statuses in (sorted(ENDED), [Status.SKIPPED])  # a skipped retry is the end of its occurrence
            for run in self._store.history(job_id, MOST_ENDS, statuses=statuses)
            if run.finished_at is not None
            and outcome_of(run) in ENDED
            and run.finished_at > since
            and run.finished_at not in followed
            and not is_followed(run.details)
            and not (dependency.after.needs_all and now < run.finished_at <= latest)  # the clock was ahead
        ]
        return sorted(ends, key=lambda run: run.finished_at or run.queued_at)

    def _follow(self, dependency: _Dependency, run: Run) -> None:
        with self._lock:
            at = dependency.accept(run)
            if at is None or dependency.job.trigger is None:
                return
            details = {"after": {end.job_id: end.run_id for end in dependency.ends.values()}}
            dependency.ends.clear()
        self._timetable.plan_once(dependency.job.job_id, dependency.job.trigger.occurrence_at(at), Origin.AFTER, details)
