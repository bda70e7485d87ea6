"""Retries: whether another attempt follows, when it starts, and by when all attempts must have ended.

Pure functions. A retry is a separate row of the ledger. Its `details` refer to the earlier attempts: `of` (the first
attempt), `previous`, `retry_number` (1 for the first retry), `retry_at`, and `deadline_at` when there is a deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from .models import Job, Origin, Run, Status, to_text
from .units import format_duration

MOST_RERUNS = 5  # of one occurrence: the job itself may be what crashes the host
HOPELESS = 1e300  # seconds: replaces a delay too large for a float; the maximum delay applies anyway
OWN_DETAILS = frozenset(
    {"of", "previous", "retry_number", "rerun_number", "retry_at", "deadline_at", "deadline", "reason", "waited"}
)


def delay_seconds(job: Job, number: int) -> float:
    """Return the delay before a retry in seconds; `number` is 1 for the first."""
    try:
        delay = job.retry_delay_seconds * job.retry_backoff ** (number - 1)
    except OverflowError:
        delay = HOPELESS
    return min(delay, job.retry_max_delay_seconds)


def retry_after(job: Job, ended: Run, deadline_at: datetime | None, now: datetime) -> datetime | None:
    """Return when another attempt follows a run that ended at `now`, or None.

    No attempt starts in a blackout or from the deadline on, and there are at most `retries`. A rerun starts at once.
    """
    number = number_of(ended) + 1
    at: datetime | None = None
    if is_rerun_after(job, ended):
        at = now
    elif number <= job.retries and is_retried(job, ended):
        at = now + timedelta(seconds=delay_seconds(job, number))
    if at is not None and job.trigger is not None:
        at = job.trigger.free_at(at)
    return None if at is None or (deadline_at is not None and at >= deadline_at) else at


def is_retried(job: Job, ended: Run) -> bool:
    """Return whether the job's `retry_on` includes the status or exit code of a run."""
    return ended.status in job.retry_on or (ended.status is Status.FAILED and ended.exit_code in job.retry_on)


def is_rerun_after(job: Job, ended: Run) -> bool:
    """Return whether an abandoned run is started again (`on_abandoned: rerun`), independent of retries."""
    return ended.status is Status.ABANDONED and job.reruns_abandoned and reruns_of(ended) < MOST_RERUNS


def reruns_of(run: Run) -> int:
    """Return the number of reruns of an occurrence up to this run."""
    return int(run.details.get("rerun_number", 0))


def number_of(run: Run) -> int:
    """Return the number of retries of an occurrence up to this run: 0 for a first attempt."""
    return int(run.details.get("retry_number", 0))


def retry_at_of(run: Run) -> datetime | None:
    """Return when a waiting retry starts, or None when it has no such time."""
    return _instant(run.details.get("retry_at"))


def rebased(run: Run, now: datetime) -> Run:
    """Return a waiting run; when a clock that was ahead queued it, with its times shifted as if it were queued now."""
    ahead = run.queued_at - now
    if ahead <= timedelta():
        return run
    times = {name: at for name in ("retry_at", "deadline_at") if (at := _instant(run.details.get(name))) is not None}
    details = {**run.details, **{name: to_text(at - ahead) for name, at in times.items()}}
    return replace(run, queued_at=now, details=details)


def deadline_of(job: Job, run: Run, started_at: datetime | None) -> datetime | None:
    """Return by when all attempts of a run's occurrence must have ended, for a first attempt started at `started_at`."""
    if "deadline_at" in run.details:
        return _instant(run.details["deadline_at"])
    if job.deadline_seconds is None or started_at is None:
        return None
    return started_at + timedelta(seconds=job.deadline_seconds)


def within_deadline(job: Job, run: Run, now: datetime) -> tuple[Job, Run]:
    """Return a job and a run as they start at `now`: the timeout is at most the time left until the deadline.

    `details.deadline` is then true: the deadline ends the run.
    """
    deadline_at = deadline_of(job, run, now)
    if deadline_at is None:
        return job, run
    left = max((deadline_at - now).total_seconds(), 0.001)
    if job.timeout_seconds is not None and job.timeout_seconds <= left:
        return job, run
    return replace(job, timeout_seconds=left), replace(run, details={**run.details, "deadline": True})


def format_deadline(job: Job) -> str:
    """Return the error message of a run that was ended by its deadline."""
    return f"ended at its deadline: {format_duration(job.deadline_seconds or 0.0)} after the start of its first attempt"


def next_attempt(
    given: Run, run_id: str, retry_at: datetime, deadline_at: datetime | None, now: datetime, is_rerun: bool = False
) -> Run:
    """Return the row of the attempt that follows `given`, the run as it was started, without its outcome.

    Reruns are counted separately from retries.
    """
    details: dict[str, Any] = {name: each for name, each in given.details.items() if name not in OWN_DETAILS}
    details |= {
        "retry_at": to_text(retry_at),
        "of": given.details.get("of", given.run_id),
        "previous": given.run_id,
        "retry_number": number_of(given) + (not is_rerun),
    }
    if is_rerun or reruns_of(given):
        details["rerun_number"] = reruns_of(given) + is_rerun
    if deadline_at is not None:
        details["deadline_at"] = to_text(deadline_at)
    return replace(
        given, run_id=run_id, origin=Origin.RETRY, status=Status.QUEUED, queued_at=now, attempt=given.attempt + 1,
        started_at=None, idempotency_key=None, details=details, sequence=None,
    )  # fmt: skip


def is_followed(details: Mapping[str, Any]) -> bool:
    """Return whether another attempt follows, by the details of a run: its end is then not that of its occurrence."""
    return "retry" in details


def outcome_of(last: Run) -> Status:
    """Return the outcome of an occurrence, by its last attempt, for dependent jobs.

    A retry that was cancelled, superseded or skipped before its start changes nothing: the earlier failure is the outcome.
    """
    is_lost = last.origin is Origin.RETRY and last.started_at is None and last.status in (Status.CANCELLED, Status.SKIPPED)
    return Status.FAILED if is_lost else last.status


def is_superseded(waiting: Run, started: Run) -> bool:
    """Return whether the start of a run supersedes a waiting retry of the same job: it is a later occurrence."""
    is_retry = waiting.origin is Origin.RETRY and started.origin not in (Origin.RETRY, Origin.MANUAL)
    if not is_retry or waiting.scheduled_at is None or started.scheduled_at is None:
        return False
    return waiting.scheduled_at < started.scheduled_at


def _instant(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
