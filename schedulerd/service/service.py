"""The verbs: everything that a caller can ask of the daemon, with the role that each needs. No HTTP here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Any, TypeVar

from .. import __version__
from ..actions.analytics import anomalies
from ..actions.last_checks import LastChecks, is_check
from ..config.status import ConfigState
from ..core.clock import Clock
from ..core.errors import ForbiddenError, InvalidError, NotFoundError, SecretError
from ..core.misfires import PAUSED
from ..core.models import UNFINISHED, Actor, Pause, Role, Run, Status, to_text
from ..core.stats import percentile_of_classes
from ..engine.manual_runs import ManualRun, ManualRuns
from ..engine.scheduler import Scheduler
from ..engine.state import JobTable
from ..process.output import OutputRange
from ..store.protocol import Store, durable
from .backups import Shelf
from .forecast import Forecast
from .occurrences import Outlook
from .runs import Runs
from .serializers import JobList, backlog_view, health_point, queue_view, series, unwritten_view

log = logging.getLogger(__name__)

HEALTH_CHECK = "health_check"
DAY = timedelta(days=1)

Verb = TypeVar("Verb", bound=Callable[..., Any])


def needs(role: Role) -> Callable[[Verb], Verb]:
    """Say which role a verb needs; the doors read it from there, and a verb without one cannot be reached."""

    def mark(verb: Verb) -> Verb:
        verb.role = role  # type: ignore[attr-defined]
        return verb

    return mark


class Service:
    """The counter: asks table, scheduler and store on behalf of a caller."""

    def __init__(
        self,
        table: JobTable,
        scheduler: Scheduler,
        store: Store,
        clock: Clock,
        config_state: ConfigState,
        checks: LastChecks,
        check_health: Callable[[], dict[str, Any]],
        keepers_trouble: Callable[[], str | None],
        capacity: Callable[[], dict[str, Any]],
        troubles: Callable[[], list[str]],
        loop_trouble: Callable[[], str | None],
        runs: Runs,
        shelf: Shelf,
    ) -> None:
        self._table = table
        self._scheduler = scheduler
        self._manual_runs = ManualRuns(scheduler)
        self._store = store
        self._clock = clock
        self._config = config_state
        self._checks = checks
        self._check_health = check_health
        self._keepers_trouble = keepers_trouble
        self._capacity = capacity
        self._troubles = troubles
        self._loop_trouble = loop_trouble
        self._job_list = JobList(table)
        self._outlook = Outlook(table, store, clock, scheduler.run_queue)
        self._forecast = Forecast(table, store, clock)
        self.runs = runs
        self._shelf = shelf
        self.waits_for: str | None = None  # why the history cannot be read yet: until then nothing is answered
        self._started = clock.monotonic()
        self._started_at = clock.now()

    @needs(Role.VIEWER)
    def list_jobs(self) -> tuple[bytes, str]:
        """Return all jobs as JSON, with its entity tag."""
        return self._job_list.render()

    @property
    def config_notice(self) -> str | None:
        """Return what is to be told with the jobs when the configuration has mistakes."""
        return self._config.notice

    @needs(Role.VIEWER)
    def show_job(self, job_id: str) -> bytes:
        """Return one job as JSON. Raise NotFoundError."""
        with self._table.lock:
            return self._job_list.one(self._table.get(job_id))

    @needs(Role.VIEWER)
    def history(
        self, job_id: str, limit: int, before: str | None = None, statuses: list[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return a page of a job's history, newest first. Raise NotFoundError for an unknown job."""
        self._table.get(job_id)
        return self.runs.page(limit, before, statuses, job_id)

    @needs(Role.VIEWER)
    def next_times(self, job_id: str, count: int, after: str | None) -> dict[str, Any]:
        """Return a job's coming starts, each with the rules that had a say. Raise NotFoundError or InvalidError."""
        return self._outlook.next_times(job_id, count, after)

    @needs(Role.VIEWER)
    def why(self, job_id: str, at: str | None) -> dict[str, Any]:
        """Return what became of an occurrence of a job, and why. Raise NotFoundError or InvalidError."""
        return self._outlook.why(job_id, at)

    @needs(Role.VIEWER)
    def simulate(self, start: datetime | None, end: datetime | None) -> dict[str, Any]:
        """Return what will start in a window, for all jobs, with the load that is expected. Raise InvalidError."""
        return self._forecast.simulate(start, end)

    @needs(Role.OPERATOR)
    def trigger(self, job_id: str, actor: Actor, key: str | None = None, params: Any = None) -> ManualRun:
        """Run a job now, with `params` (a mapping, or None). Raise NotFoundError, InvalidError or StoppingError."""
        asked = self._manual_runs.trigger(job_id, actor, key, params)
        told = "job %s: triggered by %s, as run %s"
        _when_durable(asked.recorded, lambda run: log.info(told, job_id, actor.name, run.run_id))
        return asked

    @needs(Role.VIEWER)
    def list_runs(
        self, limit: int, before: str | None, statuses: list[str] | None, job_id: str | None
    ) -> list[dict[str, Any]]:
        """Return a page of the runs of all jobs, or of one, newest first."""
        return self.runs.page(limit, before, statuses, job_id)

    @needs(Role.VIEWER)
    def show_run(self, run_id: str) -> dict[str, Any]:
        """Return a run, how far it is, and how much it has written. Raise NotFoundError."""
        return self.runs.show(run_id)

    @needs(Role.VIEWER)
    def watch_run(self, run_id: str) -> Future[Run]:
        """Return what is done when a run has ended, or the daemon stops. Raise NotFoundError."""
        return self._manual_runs.watch(self.runs.get(run_id))

    @needs(Role.VIEWER)
    def read_output(self, run_id: str, offset: int, actor: Actor) -> tuple[Run, OutputRange]:
        """Return a run and the first stretch of its output at or after `offset`.

        Raise NotFoundError; and ForbiddenError unless an admin asks, when the output is for admins only, see `check_open`.
        """
        run = self.runs.get(run_id)
        if actor.role < Role.ADMIN:
            try:
                self.runs.check_open(run)
            except SecretError as error:
                raise ForbiddenError(f"the output of run {run_id} is for admins only: {error}") from None
        return run, self.runs.stretch(run, offset)

    @needs(Role.OPERATOR)
    def cancel(self, run_id: str, actor: Actor, reason: str | None) -> tuple[bool, Future[Run], Future[Run]]:
        """End a run. Returns whether it was not over, it as it was after the order, and it when it has ended.

        Another attempt that follows it is a run of its own.

        Raise NotFoundError.
        """
        run = self.runs.get(run_id)
        is_ordered = run.status in UNFINISHED
        ended = self._manual_runs.watch(run)
        ordered = self._scheduler.cancel(run_id, actor.name + (f": {reason}" if reason else "")) if is_ordered else ended
        told = f"run %s of job %s: cancelled by %s{'' if is_ordered else ', too late'}"
        _when_durable(ordered, lambda _: log.info(told, run_id, run.job_id, actor.name))
        return is_ordered, ordered, ended

    @needs(Role.OPERATOR)
    def pause(
        self, job_id: str, actor: Actor, reason: str | None, until: datetime | None
    ) -> tuple[Future[None], Pause | None]:
        """Pause a job; pausing it again replaces reason and end, and keeps since when. Returns the pause before, too.

        Raise NotFoundError or InvalidError.
        """
        now = self._clock.now()
        if until is not None and until <= now:
            raise InvalidError(["body", "until"], "Input should be in the future", to_text(until))
        before = self._pause_of(job_id)
        since = now if before is None else before.paused_at
        done = self._scheduler.pauses.set(job_id, Pause(since, actor.name, reason, until))
        because = f": {reason}" if reason else ""
        _when_durable(done, lambda _: log.info("job %s: paused by %s%s", job_id, actor.name, because))
        return done, before

    def _pause_of(self, job_id: str) -> Pause | None:
        with self._table.lock:
            return self._table.get(job_id).pause

    @needs(Role.OPERATOR)
    def resume(self, job_id: str, actor: Actor) -> tuple[Future[None], Pause | None]:
        """Resume a job; a job that is not paused stays as it is. Returns the pause before, too. Raise NotFoundError."""
        before = self._pause_of(job_id)
        done = self._scheduler.pauses.set(job_id, None)
        _when_durable(done, lambda _: log.info("job %s: resumed by %s", job_id, actor.name))
        return done, before

    @needs(Role.OPERATOR)
    def resume_and_catch_up(self, job_id: str, actor: Actor) -> bool:
        """Resume a job, and run once what its pause skipped, if anything. Returns whether something is run."""
        done, pause = self.resume(job_id, actor)
        durable(done)
        newest = self._store.history(job_id, 1, statuses=[Status.SKIPPED])
        is_due = (
            pause is not None
            and bool(newest)
            and newest[0].details.get("reason") == PAUSED
            and newest[0].queued_at >= pause.paused_at
        )
        if is_due:
            self._scheduler.catch_up_pause(job_id, newest[0])
        return is_due

    @needs(Role.VIEWER)
    def running(self) -> list[dict[str, Any]]:
        """Return what runs now, oldest first: history items that have not ended, with how far they are."""
        return self.runs.running()

    @needs(Role.VIEWER)
    def health(self, actor: Actor) -> dict[str, Any]:
        """Return the last health check and its age; when none was made yet, one that is made now.

        What is wrong with the configuration is told to operators; others learn how many mistakes there are.
        """
        last = self._checks.newest(self.health_jobs())
        if last is None:
            details, checked_at = self._check_health(), self._clock.now()
        else:
            details, checked_at = dict(last.details), last.checked_at
        own = self._own_health(actor.role >= Role.OPERATOR)
        status = details["status"] if own["loop"] == "ok" and own["unwritten"] is None else "unhealthy"
        if status == "healthy" and not own["is_well"]:
            status = "degraded"
        return {
            "status": status,
            "services": details["services"],
            "system": details["system"],
            "checked_at": to_text(checked_at),
            "age_seconds": round(last.age_seconds(self._clock.now(), self._clock.monotonic()), 3) if last else 0.0,
            "job_id": last.job_id if last else None,
            "scheduler": own,
        }

    @needs(Role.VIEWER)
    def health_jobs(self) -> list[str]:
        """Return the jobs that check health."""
        with self._table.lock:
            return [job_id for job_id, state in self._table.states.items() if state.job.action == HEALTH_CHECK]

    @needs(Role.VIEWER)
    def health_history(self, job_id: str | None, limit: int, before: str | None) -> list[dict[str, Any]]:
        """Return the newest checks of a job (default: the first that checks health), newest first, small enough to chart.

        Raise NotFoundError for a job that checks no health.
        """
        jobs = self.health_jobs()
        if job_id is None and not jobs:
            return []
        if job_id is not None and job_id not in jobs:
            raise NotFoundError(f"there is no job {job_id!r} that checks health")
        return [health_point(run) for run in self._store.history(job_id or jobs[0], limit, before) if is_check(run)]

    def _own_health(self, is_operator: bool) -> dict[str, Any]:
        trouble, alarm, keepers, troubles = self._store.trouble, self._store.alarm, self._keepers_trouble(), self._troubles()
        loop, descriptors = self._loop_trouble(), self._capacity()
        unwritten = unwritten_view(self._scheduler.unwritten.count(), self._store.ends_in_memory, self._store.accepts_runs)
        return {
            "is_well": not (
                trouble
                or alarm
                or keepers
                or loop
                or troubles
                or descriptors["trouble"]
                or unwritten
                or self._config.is_unwell
            ),
            "store": "ok"
            if trouble is None
            else f"the history cannot be written: {trouble if is_operator else 'the log says why'}",
            "store_alarm": alarm,
            "keepers": keepers or "ok",
            "descriptors": descriptors,
            "loop": loop or "ok",
            "troubles": troubles,
            "backlog": backlog_view(self._store.backlog),
            "unwritten": unwritten,
            "queue": queue_view(self._table.not_started(), self._clock.now()),
            "config": self._config.path,
            "config_loaded_at": to_text(self._config.loaded_at),
            "config_problems": self._config.problems if is_operator else [],
            "config_problem_count": len(self._config.problems),
            "config_notice": self._config.notice,
            "config_is_copy": self._config.is_copy,
            "config_copy_error": self._config.copy_error,
            "limits_not_kept": self._config.limits_not_kept,  # a note: by job; nothing is unwell for it
        }

    @needs(Role.VIEWER)
    def backups(self, job_id: str | None, source: str | None, limit: int | None, with_missing: bool) -> list[dict[str, Any]]:
        """Return the backups of this host, newest first, of one job or source when it is given; or the missing, too."""
        return self._shelf.page(job_id, source, limit, with_missing)

    @needs(Role.VIEWER)
    def show_backup(self, filename: str) -> dict[str, Any]:
        """Return one backup. Raise NotFoundError."""
        return self._shelf.show(filename)

    @needs(Role.OPERATOR)
    def verify_backup(self, filename: str, actor: Actor) -> dict[str, Any]:
        """Read a backup and compare its digest; return it. Raise NotFoundError, BusyError or BackupError."""
        return self._shelf.verify(filename, actor)

    @needs(Role.OPERATOR)
    def hold_backup(self, filename: str, actor: Actor, reason: str | None) -> dict[str, Any]:
        """Keep a backup whatever the counts say; return it. Raise NotFoundError or BackupError."""
        return self._shelf.hold(filename, actor, reason)

    @needs(Role.OPERATOR)
    def release_backup(self, filename: str, actor: Actor) -> dict[str, Any]:
        """End the hold of a backup; return it. Raise NotFoundError or BackupError."""
        return self._shelf.release(filename, actor)

    @needs(Role.OPERATOR)
    def accept_backup(self, filename: str, actor: Actor, reason: str | None) -> dict[str, Any]:
        """Take a backup for good although its size was odd; return it.

        Raise NotFoundError, ConflictError when more is wrong with it, or BackupError.
        """
        return self._shelf.accept(filename, actor, reason)

    @needs(Role.OPERATOR)
    def forget_backup(self, filename: str, actor: Actor) -> dict[str, Any]:
        """Take a backup whose file is missing out of the catalogue; return what it was.

        Raise NotFoundError, ConflictError when the file is there, or BackupError.
        """
        return self._shelf.forget(filename, actor)

    @needs(Role.VIEWER)
    def stats(self, days: int = 0, job_id: str | None = None) -> dict[str, Any]:
        """Return counts of jobs and runs, success rate, lateness and uptime.

        With `days`, also what analytics knows of so many past days, of one job or all: `days` and `anomalies`.
        """
        now = self._clock.now()
        with self._table.lock:
            states = list(self._table.states.values())
        by_status, recent = self._store.counts(), self._store.counts(now - DAY, now)
        late = self._store.lateness(now - DAY, now)
        return {
            "total_jobs": len(states),
            "enabled_jobs": sum(state.job.enabled for state in states),
            "paused_jobs": sum(state.pause is not None for state in states),
            "running_jobs": sum(bool(state.running) for state in states),
            **_counted(by_status),
            "last_24h": {
                **_counted(recent),
                "lateness_p50_seconds": percentile_of_classes(late, 50),
                "lateness_p99_seconds": percentile_of_classes(late, 99),
            },
            "uptime_seconds": round(self._clock.monotonic() - self._started, 3),
            "started_at": to_text(self._started_at),
            "node": self._scheduler.node,
            "version": __version__,
            **(self._series(now, days, job_id) if days else {}),
        }

    def _series(self, now: datetime, days: int, job_id: str | None) -> dict[str, Any]:
        last = now.date() + DAY  # in some zones it is tomorrow already
        found = self._store.daily((last - days * DAY).isoformat(), last.isoformat(), job_id)
        return {"days": series(found), "anomalies": anomalies(found, max((one.day for one in found), default=""))}

    def readiness(self) -> dict[str, Any]:
        """Return whether new work is taken and can be recorded; asked without authentication.

        `degraded`: it is written down in the outage journal for now.
        """
        if self._scheduler.is_stopping or self.waits_for is not None or not self._store.accepts_runs:
            return {"status": "not ready"}
        if self._store.trouble is not None:
            return {"status": "degraded", "backlog": backlog_view(self._store.backlog)}
        return {"status": "ready"}


def _when_durable(change: Future[Any], tell: Callable[[Any], None]) -> None:
    """Tell of what was done on somebody's behalf once it is; what is refused, the caller hears."""
    change.add_done_callback(lambda done: tell(done.result()) if done.exception() is None else None)


def _counted(by_status: dict[str, int]) -> dict[str, Any]:
    success = by_status.get(Status.SUCCESS, 0)
    failed = sum(by_status.get(status, 0) for status in (Status.FAILED, Status.TIMED_OUT, Status.ABANDONED))
    return {
        "total_runs": sum(by_status.values()),
        "successful_runs": success,
        "failed_runs": failed,
        "success_rate": round(success / (success + failed), 4) if success + failed else None,
        "runs_by_status": {str(status): by_status.get(status, 0) for status in Status},
    }
