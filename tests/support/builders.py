"""Values for tests, with everything that a test does not care about filled in."""

from datetime import UTC, datetime
from typing import Any

from schedulerd.model import Job, Origin, Run, Status, new_run_id
from schedulerd.triggers import trigger_from

NOON = datetime(2026, 3, 10, 12, 0, 0, tzinfo=UTC)


def a_job(job_id: str = "job", **changes: Any) -> Job:
    """Return a job that runs /bin/true, with `every` or `cron` taken as its trigger."""
    rule = {key: changes.pop(key) for key in ("every", "cron") if key in changes}
    trigger = trigger_from(rule, changes.get("timezone", "UTC"))
    given = {"name": job_id, "action": "command", "options": {"command": ("/bin/true",)}, "trigger": trigger}
    return Job(job_id=job_id, **{**given, **changes})


def a_run(job_id: str = "job", **changes: Any) -> Run:
    """Return a scheduled run that has been claimed."""
    at = changes.pop("at", NOON)
    given = {"origin": Origin.SCHEDULE, "status": Status.RUNNING, "queued_at": at, "scheduled_at": at, "node": "test"}
    return Run(run_id=changes.pop("run_id", new_run_id(at)), job_id=job_id, **{**given, **changes})
