"""The table of routes: each has a handler, and the operation of the service whose role it requires."""

from __future__ import annotations

from ..service.backups import Backups
from ..service.explanations import Explanations
from ..service.health import Health
from ..service.jobs import Jobs
from ..service.occurrences import Occurrences
from ..service.outputs import Outputs
from ..service.runs import Runs
from ..service.simulations import Simulations
from ..service.statistics import Statistics
from . import backups, jobs, runs, status
from .app import Handler, Route
from .responses import PREFIX

# These need no authentication
OPEN_ROUTES: dict[str, Handler] = {"/healthz": status.healthz, "/readyz": status.readyz}

ROUTES = (
    Route("GET", f"{PREFIX}/jobs", jobs.list_jobs, Jobs.list_jobs),
    Route("GET", f"{PREFIX}/jobs/{{job_id}}", jobs.show_job, Jobs.show),
    Route("GET", f"{PREFIX}/jobs/{{job_id}}/history", jobs.history, Jobs.history),
    Route("GET", f"{PREFIX}/jobs/{{job_id}}/next", jobs.next_times, Occurrences.next_times),
    Route("GET", f"{PREFIX}/jobs/{{job_id}}/why", jobs.why, Explanations.why),
    Route("GET", f"{PREFIX}/simulate", jobs.simulate, Simulations.simulate),
    Route("POST", f"{PREFIX}/jobs/{{job_id}}/trigger", jobs.trigger, Jobs.trigger),
    Route("POST", f"{PREFIX}/jobs/{{job_id}}/pause", jobs.pause, Jobs.pause),
    Route("POST", f"{PREFIX}/jobs/{{job_id}}/resume", jobs.resume, Jobs.resume),
    Route("GET", f"{PREFIX}/runs", runs.list_runs, Runs.list_runs),
    Route("GET", f"{PREFIX}/runs/{{run_id}}", runs.show_run, Runs.show),
    Route("GET", f"{PREFIX}/runs/{{run_id}}/output", runs.output, Outputs.open),
    Route("POST", f"{PREFIX}/runs/{{run_id}}/cancel", runs.cancel, Runs.cancel),
    Route("GET", f"{PREFIX}/running", status.running, Runs.running),
    Route("GET", f"{PREFIX}/health", status.health, Health.show),
    Route("GET", f"{PREFIX}/health/history", status.health_history, Health.history),
    Route("GET", f"{PREFIX}/backups", backups.list_backups, Backups.list_backups),
    Route("GET", f"{PREFIX}/backups/{{filename}}", backups.show_backup, Backups.show),
    Route("POST", f"{PREFIX}/backups/{{filename}}/verify", backups.verify, Backups.verify),
    Route("POST", f"{PREFIX}/backups/{{filename}}/hold", backups.hold, Backups.hold),
    Route("POST", f"{PREFIX}/backups/{{filename}}/release", backups.release, Backups.release),
    Route("POST", f"{PREFIX}/backups/{{filename}}/accept", backups.accept, Backups.accept),
    Route("POST", f"{PREFIX}/backups/{{filename}}/forget", backups.forget, Backups.forget),
    Route("GET", f"{PREFIX}/stats", status.stats, Statistics.show),
)
