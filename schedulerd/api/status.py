"""The handlers of running runs, health and statistics, and the two probes that need no authentication."""

from __future__ import annotations

from aiohttp import web

from .app import Api
from .requests import flag_from, job_from, limit_from, run_id_from, whole_from
from .responses import answer, settled

MOST_DAYS = 400  # of stats


async def running(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /running: the runs that are queued or running."""
    return answer(await api.call(request, api.service.runs.running))


async def health(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /health: the state of the daemon and the results of the last health checks."""
    if flag_from(request.query.get("refresh"), "refresh"):
        for started in await api.call(request, api.service.health.refresh, request["actor"]):
            await settled(started.done)
    return answer(await api.call(request, api.service.health.show, request["actor"]))


async def health_history(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /health/history: a page of earlier health checks."""
    query = request.query
    limit, before = limit_from(query.get("limit")), run_id_from(query.get("before"))
    return answer(await api.call(request, api.service.health.history, job_from(query.get("job")), limit, before))


async def stats(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /stats: statistics of runs, in total and by day."""
    days = whole_from(request.query.get("days", "0"), "days", 0, MOST_DAYS)
    return answer(await api.call(request, api.service.statistics.show, days, job_from(request.query.get("job"))))


async def healthz(_api: Api, _request: web.Request) -> web.StreamResponse:
    """GET /healthz: whether the process responds."""
    return answer({"status": "ok"})


async def readyz(api: Api, _request: web.Request) -> web.StreamResponse:
    """GET /readyz: whether runs can be started and recorded; 503 if not."""
    found = api.service.readiness()
    return answer(found, 503 if found["status"] == "not ready" else 200)
