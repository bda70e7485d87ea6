"""Jobs that start after other jobs: which ends count, and since when.

Nothing is stored for it: an end is a row of the ledger, and so is what it started, whose `scheduled_at` is the moment of
that end. So at a start of the daemon the ends that were not followed yet are those without such a row.
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
from .planner import Planner

MOST_ENDS = 100  # of one job that are looked at after a start


@dataclass(eq=False)
class _Link:
    """One `after` of one job, and the ends that it has seen since it was due last."""

    job: Job
    after: After
    ends: dict[str, Run] = field(default_factory=dict)

    def due(self, run: Run) -> datetime | None:
        """Take note of an end; return when the job is due if it is due now."""
        if run.finished_at is None or not is_wanted(self.after, outcome_of(run)):
            return None
        self.ends[run.job_id] = run
        return follows(self.after, {job_id: end.finished_at for job_id, end in self.ends.items() if end.finished_at})


class Dependencies:
    """Hears of ends, and makes the jobs that follow due."""

    def __init__(self, planner: Planner, store: Store) -> None:
        self._planner = planner
        self._store = store
        self._links: list[_Link] = []
        self._after: dict[str, list[_Link]] = {}  # by the job that ends
        self._lock = threading.Lock()  # ends are heard of in whichever thread the store answers

    def link(self, jobs: Mapping[str, Job]) -> None:
        """Follow the jobs that there are now; what was seen for a link that stays the same is kept."""
        before = {(link.job.job_id, link.after): link.ends for link in self._links}
        links = [
            _Link(job, after, before.get((job.job_id, after), {}))
            for job in jobs.values()
            if job.is_scheduled and job.trigger is not None
            for after in job.trigger.events.after
        ]
        after: dict[str, list[_Link]] = {}
        for link in links:
            for job_id in link.after.jobs:
                after.setdefault(job_id, []).append(link)
        self._links, self._after = links, after

    def follow(self, ended: Iterable[Run]) -> None:
        """Make due what follows the runs that have ended, in the order of their ends."""
        if not self._after:
            return
        for run in sorted(ended, key=lambda run: run.finished_at or run.queued_at):
            for link in self._after.get(run.job_id, ()):
                self._follow(link, run)

    def follow_what_was_missed(self, now: datetime) -> None:
        """Make due what follows ends that no daemon saw to: called once, at the start."""
        if not self._links:
            return
        known = self._store.jobs()
        for link in self._links:
            since = max(known[link.job.job_id].planned_since, now - FOLLOWED_FOR)
            for run in self._not_followed(link, since, now):
                self._follow(link, run)

    def _not_followed(self, link: _Link, since: datetime, now: datetime) -> list[Run]:
        """Return the ends later than `since` that the ledger does not know as followed, in their order."""
        followed = self._store.followed(link.job.job_id, since)
        latest = max(followed, default=now)
        if link.after.needs_all:  # an end that was overtaken by a later one of the same job is in no row of its own
            since = max((at for at in followed if at <= now), default=since)
        ends = [
            run
            for job_id in link.after.jobs
            for statuses in (sorted(ENDED), [Status.SKIPPED])  # a retry may have been: then that is its occurrence's end
            for run in self._store.history(job_id, MOST_ENDS, statuses=statuses)
            if run.finished_at is not None
            and outcome_of(run) in ENDED
            and run.finished_at > since
            and run.finished_at not in followed
            and not is_followed(run.details)
            and not (link.after.needs_all and now < run.finished_at <= latest)  # the clock was ahead
        ]
        return sorted(ends, key=lambda run: run.finished_at or run.queued_at)

    def _follow(self, link: _Link, run: Run) -> None:
        with self._lock:
            at = link.due(run)
            if at is None or link.job.trigger is None:
                return
            details = {"after": {end.job_id: end.run_id for end in link.ends.values()}}
            link.ends.clear()
        self._planner.plan_once(link.job.job_id, link.job.trigger.occurrence_at(at), Origin.AFTER, details)
