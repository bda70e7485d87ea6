"""Values for tests, with everything that a test does not care about filled in."""

from datetime import UTC, datetime
from typing import Any

from schedulerd.core.misfires import Due, Gap
from schedulerd.core.models import Job, Origin, Run, Status, new_run_id
from schedulerd.core.trigger import Occurrence
from schedulerd.triggers.factory import trigger_from

RULE = (
    "cron",
    "every",
    "calendar",
    "at",
    "startup",
    "after",
    "triggers",
    "dst",
    "jitter",
    "spread",
    "blackout",
    "on_blackout",
)
NOON = datetime(2026, 3, 10, 12, 0, 0, tzinfo=UTC)


def a_job(job_id: str = "job", **changes: Any) -> Job:
    """Return a job that runs /bin/true, with the keys of a trigger taken as in the YAML."""
    rule = {key: changes.pop(key) for key in RULE if key in changes}
    trigger = trigger_from(rule, changes.get("timezone", "UTC"), seed=job_id)
    given = {"name": job_id, "action": "command", "options": {"command": ("/bin/true",)}, "trigger": trigger}
    return Job(job_id=job_id, **{**given, **changes})


def a_run(job_id: str = "job", **changes: Any) -> Run:
    """Return a scheduled run that has been claimed."""
    at = changes.pop("at", NOON)
    given = {"origin": Origin.SCHEDULE, "status": Status.RUNNING, "queued_at": at, "scheduled_at": at, "node": "test"}
    return Run(run_id=changes.pop("run_id", new_run_id(at)), job_id=job_id, **{**given, **changes})


def due_at(*times: datetime, earlier: Gap | None = None) -> Due:
    """Return occurrences that are due, without anything that moves them."""
    return Due([Occurrence(at, at) for at in times], earlier)
