"""Which jobs there are, and from when on each is planned: at the start from the store, at a reload as a difference.

A job goes on from its newest occurrence in the ledger, so what was due while nobody looked is found; a new job, or one
whose rule was changed, disabled or taken away in between, begins now: an edit never makes times before itself due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from .board import Board, JobState
from .clock import Clock
from .model import Job, JobRecord, Run
from .planner import Planner
from .scheduler import Scheduler
from .store import Store, durable

NO_RULE = ""
GONE = "its job was taken out of the configuration"


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new set of jobs changed, as job ids."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(ids)} {what}" for what, ids in self._parts() if ids]
        return ", ".join(parts) or "no job changed"

    def _parts(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (("added", self.added), ("changed", self.changed), ("removed", self.removed))


class Roster:
    """Puts sets of jobs into place."""

    def __init__(self, board: Board, planner: Planner, scheduler: Scheduler, store: Store, clock: Clock) -> None:
        self._board = board
        self._planner = planner
        self._scheduler = scheduler
        self._store = store
        self._clock = clock

    def apply(self, jobs: Mapping[str, Job]) -> Changes:
        """Make `jobs` the jobs that there are. Unchanged ones keep plans, pauses and runs; returns when it is durable."""
        now = self._clock.now()
        known = self._store.jobs()
        before = self._board.states
        changes = Changes(
            added=tuple(job_id for job_id in jobs if job_id not in before),
            changed=tuple(job_id for job_id, job in jobs.items() if job_id in before and before[job_id].job != job),
            removed=tuple(job_id for job_id in before if job_id not in jobs),
        )
        new_records = [
            JobRecord(job_id, rule, now)
            for job_id, rule in self._rules(jobs, known).items()
            if job_id not in known or known[job_id].rule != rule
        ]
        if new_records:
            durable(self._store.save_jobs(new_records))
        since = {job_id: record.planned_since for job_id, record in known.items()}
        since |= {record.job_id: record.planned_since for record in new_records}
        # By what is planned, not by what is stored: an earlier reload may have come to grief between the two.
        replanned = [job_id for job_id in changes.changed if _rule(before[job_id].job) != _rule(jobs[job_id])]
        since |= dict.fromkeys(replanned, now)
        self._scheduler.cancel_queued(self._place(jobs, known), GONE)
        self._planner.unplan(changes.removed)
        self._plan(jobs, [*changes.added, *replanned], {record.job_id for record in new_records}, since)
        return changes

    @staticmethod
    def _rules(jobs: Mapping[str, Job], known: Mapping[str, JobRecord]) -> dict[str, str]:
        rules = dict.fromkeys(known, NO_RULE)
        for job_id, job in jobs.items():
            rules[job_id] = _rule(job)
        return rules

    def _place(self, jobs: Mapping[str, Job], known: Mapping[str, JobRecord]) -> list[Run]:
        """Put the new set in place; return the waiting runs of jobs that are gone."""
        fresh = [job_id for job_id in jobs if job_id not in self._board.states and job_id in known]
        results = self._store.last_results(fresh)
        with self._board.lock:
            states: dict[str, JobState] = {}
            for job_id, job in jobs.items():
                # A job that is back while something of it still runs goes on with that.
                state = self._board.states.get(job_id) or self._board.retired.pop(job_id, None)
                if state is None:
                    record = known.get(job_id)
                    state = JobState(job, record.pause if record else None, last_result=results.get(job_id))
                elif state.job != job:
                    state.job = job
                    self._board.touch(state)
                self._scheduler.pauses.watch(state)
                states[job_id] = state
            return self._board.replace(states)

    def _plan(
        self, jobs: Mapping[str, Job], touched: Sequence[str], rewritten: set[str], since: Mapping[str, datetime]
    ) -> None:
        newest = self._store.last_occurrences([job_id for job_id in touched if job_id not in rewritten])
        for job_id in touched:
            job = jobs[job_id]
            if not job.is_scheduled or job.trigger is None:
                self._planner.unplan([job_id])
                next_at = None
            else:
                next_at = self._planner.plan(job_id, job.trigger, max(since[job_id], newest.get(job_id, since[job_id])))
            with self._board.lock:
                state = self._board.states[job_id]
                state.next_run_at = next_at
                self._board.touch(state)


def _rule(job: Job) -> str:
    """Return what decides when a job is due; another text is planned anew."""
    return job.trigger.text if job.is_scheduled and job.trigger is not None else NO_RULE
