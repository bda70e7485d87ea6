"""The table of routes: each has a thin handler, and a verb of the service whose role the caller needs."""

from __future__ import annotations

from ..service.service import Service
from . import backups, jobs, runs, status
from .app import Handler, Route
from .responses import PREFIX

# Answered without authentication: they tell nothing but ok
OPEN_ROUTES: dict[str, Handler] = {"/healthz": status.healthz, "/readyz": status.readyz}

ROUTES = (
    Route("GET", f"{PREFIX}/jobs", jobs.list_jobs, Service.list_jobs),
    Route("GET", f"{PREFIX}/jobs/{{job_id}}", jobs.show_job, Service.show_job),
    Route("GET", f"{PREFIX}/jobs/{{job_id}}/history", jobs.history, Service.history),
    Route("GET", f"{PREFIX}/jobs/{{job_id}}/next", jobs.next_times, Service.next_times),
    Route("GET", f"{PREFIX}/jobs/{{job_id}}/why", jobs.why, Service.why),
    Route("GET", f"{PREFIX}/simulate", jobs.simulate, Service.simulate),
    Route("POST", f"{PREFIX}/jobs/{{job_id}}/trigger", jobs.trigger, Service.trigger),
    Route("POST", f"{PREFIX}/jobs/{{job_id}}/pause", jobs.pause, Service.pause),
    Route("POST", f"{PREFIX}/jobs/{{job_id}}/resume", jobs.resume, Service.resume),
    Route("GET", f"{PREFIX}/runs", runs.list_runs, Service.list_runs),
    Route("GET", f"{PREFIX}/runs/{{run_id}}", runs.show_run, Service.show_run),
    Route("GET", f"{PREFIX}/runs/{{run_id}}/output", runs.output, Service.read_output),
    Route("POST", f"{PREFIX}/runs/{{run_id}}/cancel", runs.cancel, Service.cancel),
    Route("GET", f"{PREFIX}/running", status.running, Service.running),
    Route("GET", f"{PREFIX}/health", status.health, Service.health),
    Route("GET", f"{PREFIX}/health/history", status.health_history, Service.health_history),
    Route("GET", f"{PREFIX}/backups", backups.list_backups, Service.backups),
    Route("GET", f"{PREFIX}/backups/{{filename}}", backups.show_backup, Service.show_backup),
    Route("POST", f"{PREFIX}/backups/{{filename}}/verify", backups.verify, Service.verify_backup),
    Route("POST", f"{PREFIX}/backups/{{filename}}/hold", backups.hold, Service.hold_backup),
    Route("POST", f"{PREFIX}/backups/{{filename}}/release", backups.release, Service.release_backup),
    Route("POST", f"{PREFIX}/backups/{{filename}}/accept", backups.accept, Service.accept_backup),
    Route("POST", f"{PREFIX}/backups/{{filename}}/forget", backups.forget, Service.forget_backup),
    Route("GET", f"{PREFIX}/stats", status.stats, Service.stats),
)
