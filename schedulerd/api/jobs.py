"""The handlers of jobs and of their occurrences."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from aiohttp import web

from ..core.errors import InvalidError
from ..core.models import Run, Status, to_text
from ..core.units import format_duration
from ..service.serializers import run_view, to_bytes
from .app import Api
from .requests import instant_from, json_body, key_from, limit_from, reason_from, run_id_from, statuses_from, wait_from
from .responses import HEADERS, NOTICE, answer, answer_bytes, in_thread, settled


async def list_jobs(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /jobs: all jobs, with an ETag."""
    body, etag = api.permitted(request, api.service.jobs.list_jobs)()
    response = _tagged(request, body, etag)
    if notice := api.permitted(request, api.service.jobs.notice)():
        response.headers[NOTICE] = notice
    return response


async def show_job(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /jobs/{job_id}: one job."""
    return answer_bytes(api.permitted(request, api.service.jobs.show)(_job_id(request)))


async def history(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /jobs/{job_id}/history: a page of a job's runs, newest first."""
    job_id, query = _job_id(request), request.query
    limit = limit_from(query.get("limit"))
    statuses = statuses_from(query.getall("status", []))
    before = run_id_from(query.get("before"))
    return answer(await api.call(request, api.service.jobs.history, job_id, limit, before, statuses))


async def next_times(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /jobs/{job_id}/next: the next start times of a job."""
    count = limit_from(request.query.get("count"), "count")
    job_id, after = _job_id(request), request.query.get("after")
    return answer(await api.call(request, api.service.occurrences.next_times, job_id, count, after))


async def why(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /jobs/{job_id}/why: the explanation of what happened to an occurrence."""
    return answer(await api.call(request, api.service.explanations.why, _job_id(request), request.query.get("at")))


async def simulate(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /simulate: the computed starts of all jobs in a window of time."""
    start, end = (instant_from(request.query.get(name), "query", name) for name in ("from", "to"))
    found = await api.call(request, api.service.simulations.simulate, start, end)
    return answer_bytes(await in_thread(to_bytes, found))  # it may be large


async def trigger(api: Api, request: web.Request) -> web.StreamResponse:
    """POST /jobs/{job_id}/trigger: start a run, and wait for its end unless `wait` says otherwise."""
    job_id = _job_id(request)
    wait = wait_from(request.query.get("wait"))
    params = (await json_body(request, "params")).get("params")
    asked = await api.call(request, api.service.jobs.trigger, job_id, request["actor"], key_from(request), params)
    run = await settled(asked.recorded)
    if wait != 0:
        done = asyncio.wrap_future(asked.done)
        await asyncio.wait([done], timeout=wait)
        run = done.result() if done.done() else api.permitted(request, api.service.runs.current)(run)
    return answer(_triggered(run), 202 if run.status in (Status.QUEUED, Status.RUNNING) else 200)


def _triggered(run: Run) -> dict[str, Any]:
    took = f" after {format_duration(run.duration_seconds)}" if run.duration_seconds is not None else ""
    message = {
        Status.QUEUED: "accepted, waits for its turn",
        Status.RUNNING: "accepted, runs",
        Status.SUCCESS: f"succeeded{took}",
    }.get(run.status) or f"{str(run.status).replace('_', ' ')}{took}: {run.error_message}"
    if run.status is Status.SUCCESS and run.details.get("message"):
        message += f": {run.details['message']}"
    if run.status is Status.RUNNING and run.started_at is None:
        run = replace(run, status=Status.QUEUED)  # the response shows it as queued until it has been started
    out = {
        "success": run.status in (Status.SUCCESS, Status.QUEUED, Status.RUNNING),
        "job_id": run.job_id,
        "status": run.status,
        "message": message,
        "result": run_view(run),
        "run_id": run.run_id,
    }
    if run.status is Status.SKIPPED:
        out["run_id"] = run.details.get("blocking_run")
    return out


async def pause(api: Api, request: web.Request) -> web.StreamResponse:
    """POST /jobs/{job_id}/pause: pause a job."""
    job_id = _job_id(request)
    body = await json_body(request, "reason", "until")
    reason, until = reason_from(body), body.get("until")
    end = instant_from(until, "body", "until")
    done, before = api.permitted(request, api.service.jobs.pause)(job_id, request["actor"], reason, end)
    await settled(done)
    message = f"paused until {_end(until)}"
    if before is not None:
        message += f"; it was paused already, until {_end(to_text(before.until) if before.until else None)}"
    return answer({"success": True, "job_id": job_id, "status": "paused", "message": message})


def _end(until: str | None) -> str:
    return until or "it is resumed"


async def resume(api: Api, request: web.Request) -> web.StreamResponse:
    """POST /jobs/{job_id}/resume: resume a paused job."""
    job_id = _job_id(request)
    await json_body(request)
    catch_up = request.query.get("catch_up", "none")
    if catch_up not in ("none", "latest"):
        raise InvalidError(["query", "catch_up"], "Input should be none or latest", catch_up, "enum")
    if catch_up == "none":
        done, before = api.permitted(request, api.service.jobs.resume)(job_id, request["actor"])
        await settled(done)
        message = "it was not paused" if before is None else "resumed"
    elif await api.call(request, api.service.jobs.resume_and_catch_up, job_id, request["actor"]):
        message = "resumed, and what it skipped last is run now"
    else:
        message = "resumed; it has skipped nothing that could be caught up"
    return answer({"success": True, "job_id": job_id, "status": "active", "message": message})


def _tagged(request: web.Request, body: bytes, etag: str) -> web.Response:
    if request.headers.get("If-None-Match") == etag:
        response = web.Response(status=304, headers=HEADERS)
    else:
        response = answer_bytes(body)
    response.headers["ETag"] = etag
    return response


def _job_id(request: web.Request) -> str:
    return request.match_info["job_id"]
