"""The handlers about jobs: list, show, history, next times, explanation, simulation, trigger, pause, resume."""

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
    body, etag = api.service.list_jobs()
    response = _tagged(request, body, etag)
    if notice := api.service.config_notice:
        response.headers[NOTICE] = notice
    return response


async def show_job(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /jobs/{job_id}: one job."""
    return answer_bytes(api.service.show_job(_job_id(request)))


async def history(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /jobs/{job_id}/history: a page of a job's runs, newest first."""
    job_id, query = _job_id(request), request.query
    limit = limit_from(query.get("limit"))
    statuses = statuses_from(query.getall("status", []))
    return answer(await in_thread(api.service.history, job_id, limit, run_id_from(query.get("before")), statuses))


async def next_times(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /jobs/{job_id}/next: the next times at which a job is due."""
    count = limit_from(request.query.get("count"), "count")
    return answer(await in_thread(api.service.next_times, _job_id(request), count, request.query.get("after")))


async def why(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /jobs/{job_id}/why: what became of a time, and why."""
    return answer(await in_thread(api.service.why, _job_id(request), request.query.get("at")))


async def simulate(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /simulate: what will start in a window of time."""
    start, end = (instant_from(request.query.get(name), "query", name) for name in ("from", "to"))
    return answer_bytes(await in_thread(lambda: to_bytes(api.service.simulate(start, end))))


async def trigger(api: Api, request: web.Request) -> web.StreamResponse:
    """POST /jobs/{job_id}/trigger: start a run, and wait for its end when that is wanted."""
    job_id = _job_id(request)
    wait = wait_from(request.query.get("wait"))
    params = (await json_body(request, "params")).get("params")
    asked = await in_thread(api.service.trigger, job_id, request["actor"], key_from(request), params)
    run = await settled(asked.recorded)
    if wait != 0:
        done = asyncio.wrap_future(asked.done)
        await asyncio.wait([done], timeout=wait)
        run = done.result() if done.done() else api.service.runs.as_it_is(run)
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
        run = replace(run, status=Status.QUEUED)  # for the caller it waits, until it has been started
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
    done, before = api.service.pause(job_id, request["actor"], reason, instant_from(until, "body", "until"))
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
        done, before = api.service.resume(job_id, request["actor"])
        await settled(done)
        message = "it was not paused" if before is None else "resumed"
    elif await in_thread(api.service.resume_and_catch_up, job_id, request["actor"]):
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
