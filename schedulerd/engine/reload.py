"""The set of jobs, and the time from which each is planned: from the store at startup, by the differences at a reload.

A job continues from its newest occurrence in the ledger, so occurrences that were due while the daemon was down are found. A
new job, or one whose rule was changed, disabled or removed in between, begins now: an edit never makes earlier times due.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..core.clock import Clock, Jump
from ..core.misfires import CHANGED, most_needed
from ..core.models import Job, JobRecord, Origin, Result, Run, Status
from ..store.protocol import Store, durable
from .completion import Completion
from .dependencies import Dependencies
from .dispatch import Dispatcher
from .pauses import Pauses
from .run_queue import RunQueue
from .scheduler import Scheduler
from .state import JobState, JobTable
from .timetable import Timetable

log = logging.getLogger(__name__)

NO_POOLS: Mapping[str, int] = {}
MOST_NAMED = 5  # jobs, in the log
NO_RULE = ""
NOT_RUNNING = "the daemon was not running then"
GONE = "its job was removed from the configuration"


@dataclass(frozen=True, slots=True)
class Changes:
    """The differences between two sets of jobs, as job ids."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(ids)} {what} ({_named(ids)})" for what, ids in self._parts() if ids]
        return ", ".join(parts) or "no job changed"

    def _parts(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (("added", self.added), ("changed", self.changed), ("removed", self.removed))


class JobDefinitions:
    """Applies sets of job definitions."""

    def __init__(
        self,
        table: JobTable,
        store: Store,
        clock: Clock,
        timetable: Timetable,
        run_queue: RunQueue,
        dependencies: Dependencies,
        completion: Completion,
        dispatcher: Dispatcher,
        pauses: Pauses,
        scheduler: Scheduler,
    ) -> None:
        self._table, self._store, self._clock, self._timetable = table, store, clock, timetable
        self._run_queue, self._dependencies, self._completion = run_queue, dependencies, completion
        self._dispatcher, self._pauses, self._scheduler = dispatcher, pauses, scheduler
        self._since: dict[str, datetime] = {}  # planned_since of each job

    def on_jump(self, jump: Jump, starts: Mapping[str, datetime]) -> None:
        """Correct the values that were derived from the time before the clock was set back. This waits for no I/O."""
        if jump.seconds > 0:
            return
        now = self._clock.now()
        with self._table.lock:
            self._run_queue.rebase(now)
            for job_id, at in starts.items():
                state = self._table.states.get(job_id)
                if state is not None:
                    state.next_run_at = self._shown(state.job, at)
                    self._table.touch(state)
            jobs = {job_id: state.job for job_id, state in self._table.states.items()}
        ahead = [job_id for job_id, since in self._since.items() if since > now and job_id in jobs]
        if ahead:
            self._since |= dict.fromkeys(ahead, now)
            self._store.save_jobs([JobRecord(job_id, rule_of(jobs[job_id]), now) for job_id in ahead])

    def apply(self, jobs: Mapping[str, Job], pools: Mapping[str, int] = NO_POOLS) -> Changes:
        """Replace the set of jobs, and the slots of pools. Return the changes.

        Unchanged jobs keep their plans, pauses and runs. Durable when this returns.
        """
        now = self._clock.now()
        with self._table.lock:
            self._run_queue.limit(pools)
        known = self._store.jobs()
        before = self._table.states
        changes = Changes(
            added=tuple(job_id for job_id in jobs if job_id not in before),
            changed=tuple(job_id for job_id, job in jobs.items() if job_id in before and before[job_id].job != job),
            removed=tuple(job_id for job_id in before if job_id not in jobs),
        )
        new_records = [
            JobRecord(job_id, rule, now)
            for job_id, rule in self._rules(jobs, known).items()
            if job_id not in known or known[job_id].rule != rule or known[job_id].planned_since > now  # the clock was ahead
        ]
        if new_records:
            durable(self._store.save_jobs(new_records))
        since = {job_id: record.planned_since for job_id, record in known.items()}
        since |= {record.job_id: record.planned_since for record in new_records}
        # Compares with the planned jobs, not with the stored ones: an earlier reload may have failed between the two.
        replanned = [job_id for job_id in changes.changed if rule_of(before[job_id].job) != rule_of(jobs[job_id])]
        since |= dict.fromkeys(replanned, now)
        self._since = since
        removed = self._replace(jobs, known)
        self._completion.end_unstarted([(run, Result(Status.CANCELLED, message=GONE)) for run in removed])
        self._give_up([*changes.removed, *replanned], now)
        self._timetable.unplan(changes.removed)
        for job_id in changes.changed:  # a job that keeps its plan may have another policy now
            self._timetable.limit_due(job_id, most_needed(jobs[job_id]))
        touched = [*changes.added, *replanned]
        self._plan(jobs, touched, {record.job_id for record in new_records}, since, NOT_RUNNING if not before else None)
        self._dependencies.replace(jobs)
        if before:  # pools may have more slots now, or queued runs other rules
            self._dispatcher.promote_all()
        return changes

    def start_up(self) -> None:
        """Make the jobs due that start with the daemon: `startup`, and `after` for ends that were not followed yet."""
        now = self._clock.now()
        for state in self._table.states.values():
            trigger = state.job.trigger
            if state.job.is_scheduled and trigger is not None and trigger.events.at_startup:
                self._timetable.plan_once(state.job.job_id, trigger.occurrence_at(now), Origin.STARTUP, {})
        self._dependencies.follow_what_was_missed(now)

    def _give_up(self, job_ids: Sequence[str], now: datetime) -> None:
        """Record as missed the due occurrences, not handed over yet, of jobs whose plan ends here."""
        for each in self._timetable.overdue(job_ids, now):
            self._scheduler.give_up(each, CHANGED)

    @staticmethod
    def _rules(jobs: Mapping[str, Job], known: Mapping[str, JobRecord]) -> dict[str, str]:
        rules = dict.fromkeys(known, NO_RULE)
        for job_id, job in jobs.items():
            rules[job_id] = rule_of(job)
        return rules

    def _replace(self, jobs: Mapping[str, Job], known: Mapping[str, JobRecord]) -> list[Run]:
        """Replace the set of jobs. Return the queued runs of removed jobs."""
        fresh = [job_id for job_id in jobs if job_id not in self._table.states and job_id in known]
        results = self._store.last_results(fresh)
        successes = {job_id: run for job_id, run in results.items() if run.status is Status.SUCCESS}
        successes |= self._store.last_successes(sorted(results.keys() - successes.keys()), self._clock.now())
        with self._table.lock:
            states: dict[str, JobState] = {}
            for job_id, job in jobs.items():
                # A job that is added again while one of its runs is still running keeps that run.
                state = self._table.states.get(job_id) or self._table.retired.pop(job_id, None)
                if state is None:
                    record = known.get(job_id)
                    state = JobState(
                        job, record.pause if record else None,
                        last_result=results.get(job_id), last_success=successes.get(job_id),
                    )  # fmt: skip
                elif state.job != job:
                    state.job = job
                    self._table.touch(state)
                self._pauses.watch(state)
                states[job_id] = state
            return self._table.replace(states)

    def _plan(
        self,
        jobs: Mapping[str, Job],
        touched: Sequence[str],
        rewritten: set[str],
        since: Mapping[str, datetime],
        cause: str | None,
    ) -> None:
        now = self._clock.now()
        newest = self._store.last_occurrences([job_id for job_id in touched if job_id not in rewritten])
        ahead = [job_id for job_id, at in newest.items() if at > now]  # the clock was set back since
        past = self._store.last_occurrences(ahead, now) if ahead else {}
        for job_id in touched:
            job = jobs[job_id]
            if not job.is_scheduled or job.trigger is None:
                self._timetable.unplan([job_id])
                next_at = None
            else:
                after = max(since[job_id], newest.get(job_id, since[job_id]))
                if job.trigger.waits_for_end:
                    after = self._last_end(job_id, since[job_id])
                before_step = max(since[job_id], past[job_id]) if job_id in past else None
                next_at = self._timetable.plan(job_id, job.trigger, after, most_needed(job), cause, before_step)
                next_at = self._shown(job, next_at)
                if next_at is None and job.trigger.kind not in ("startup", "after"):
                    log.warning("job %s: its trigger has no further times (%s)", job_id, job.trigger.text)
            with self._table.lock:
                state = self._table.states[job_id]
                state.next_run_at = next_at
                self._table.touch(state)

    def _last_end(self, job_id: str, since: datetime) -> datetime:
        """Return the end of the last run of a job, or `since` when it has none."""
        last = self._table.states[job_id].last_result
        return max(since, last.finished_at) if last is not None and last.finished_at is not None else since

    def _shown(self, job: Job, next_at: datetime | None) -> datetime | None:
        """Return the next start of a job, with regard to its blackouts."""
        if job.trigger is None or not job.trigger.has_blackouts or next_at is None:
            return next_at
        return job.trigger.next_after(self._clock.now())


def _named(job_ids: Sequence[str]) -> str:
    return ", ".join([*job_ids[:MOST_NAMED], *(["…"] if len(job_ids) > MOST_NAMED else [])])


def rule_of(job: Job) -> str:
    """Return the rule of a job as text. When it changes, the job is planned again."""
    return job.trigger.text if job.is_scheduled and job.trigger is not None else NO_RULE
