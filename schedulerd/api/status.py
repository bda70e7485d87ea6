"""The handlers about the daemon as a whole: running runs, health, statistics, and the two probes without authentication."""

from __future__ import annotations

from aiohttp import web

from ..core.errors import ForbiddenError
from ..core.models import Role
from .app import Api
from .requests import flag_from, job_from, limit_from, run_id_from, whole_from
from .responses import answer, in_thread, settled

MOST_DAYS = 400  # of stats


async def running(api: Api, _request: web.Request) -> web.StreamResponse:
    """GET /running: the runs that are queued or running."""
    return answer(await in_thread(api.service.running))


async def health(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /health: the state of the daemon and of the last health checks."""
    if flag_from(request.query.get("refresh"), "refresh"):
        if request["actor"].role < Role.OPERATOR:
            raise ForbiddenError("a new check is a run: that needs the role operator")
        asked = [api.service.trigger(job_id, request["actor"]) for job_id in api.service.health_jobs()]
        for each in asked:
            await settled(each.done)
    return answer(await in_thread(api.service.health, request["actor"]))


async def health_history(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /health/history: a page of earlier health checks."""
    query = request.query
    limit, before = limit_from(query.get("limit")), run_id_from(query.get("before"))
    return answer(await in_thread(api.service.health_history, job_from(query.get("job")), limit, before))


async def stats(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /stats: figures of runs, in sum and by day."""
    days = whole_from(request.query.get("days", "0"), "days", 0, MOST_DAYS)
    return answer(await in_thread(api.service.stats, days, job_from(request.query.get("job"))))


async def healthz(_api: Api, _request: web.Request) -> web.StreamResponse:
    """GET /healthz: the process answers."""
    return answer({"status": "ok"})


async def readyz(api: Api, _request: web.Request) -> web.StreamResponse:
    """GET /readyz: whether the daemon schedules jobs; 503 when it does not."""
    found = api.service.readiness()
    return answer(found, 503 if found["status"] == "not ready" else 200)
