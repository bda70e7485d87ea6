"""The rows that decisions become, before the ledger has them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .model import Job, Origin, Result, Run, Status, finish, new_run_id, to_text
from .planner import DueJob
from .policy import OVERDUE, Passed, Start


def new_run(job: Job, origin: Origin, now: datetime, scheduled_at: datetime | None, node: str) -> Run:
    """Return the row of a run that may start at once."""
    return Run(new_run_id(now), job.job_id, origin, Status.RUNNING, now, scheduled_at, node=node)


def not_started(run: Run, status: Status, why: str, details: Mapping[str, Any]) -> Run:
    """Return the row of an occurrence that was decided not to be started."""
    return finish(run, Result(status, message=why, details=details), run.queued_at, None)


def passed_run(job: Job, passed: Passed, each: DueJob, now: datetime, node: str) -> Run:
    """Return the row of occurrences that are skipped or missed: one for all of them, at the last one's time."""
    gap = passed.gap
    details: dict[str, Any] = {**each.details, "reason": passed.why}
    if passed.window is not None:
        details["window"] = passed.window
    if gap.count > 1 or passed.status is Status.MISSED:
        details |= {"first": to_text(gap.first), "last": to_text(gap.last), "count": gap.count}
    if each.due.cause is not None and passed.status is Status.MISSED:
        details["cause"] = each.due.cause
    return not_started(new_run(job, each.origin, now, gap.last, node), passed.status, str(passed), details)


def details_of(start: Start, each: DueJob, now: datetime) -> dict[str, Any]:
    """Return what the row of a start says besides its times: what it follows, what moved it, why it is late."""
    details = {**each.details}
    if start.occurrence.reasons:
        details["moved"] = list(start.occurrence.reasons)
    if each.due.cause is not None and now - start.occurrence.start_at > OVERDUE:
        details["cause"] = each.due.cause
    return details
