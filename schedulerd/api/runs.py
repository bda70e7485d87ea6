"""The handlers of runs: list, show, output, cancel."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

from aiohttp import web

from ..core.models import UNFINISHED, Run, Status
from ..process.output import OutputRange
from .app import Api
from .requests import (
    RangeError,
    flag_from,
    job_from,
    json_body,
    limit_from,
    range_from,
    reason_from,
    run_id_from,
    run_id_of,
    statuses_from,
    wait_from,
    whole_from,
)
from .responses import HEADERS, answer, in_thread, settled
from .streaming import Sender, follow, send_stretch

LARGEST_OUTPUT = 10 * 1024 * 1024  # bytes in one response
DEFAULT_OUTPUT = 1024 * 1024
LARGEST_OFFSET = 10**18 - 1


async def list_runs(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /runs: a page of runs, newest first."""
    query = request.query
    limit, before = limit_from(query.get("limit")), run_id_from(query.get("before"))
    statuses = statuses_from(query.getall("status", []))
    return answer(await api.call(request, api.service.runs.list_runs, limit, before, statuses, job_from(query.get("job"))))


async def show_run(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /runs/{run_id}: the run, after its end if `wait` is given and the run ends within that time."""
    run_id, wait = run_id_of(request), wait_from(request.query.get("wait", "false"))
    if wait != 0:
        await _within(wait, await api.call(request, api.service.runs.watch, run_id))
    return answer(await api.call(request, api.service.runs.show, run_id))


async def _within(seconds: float | None, ended: Future[Run]) -> Run | None:
    """Return a run when it has ended or when the daemon stops. Return None when it does not end within `seconds`."""
    waiting = asyncio.wrap_future(ended)
    try:
        await asyncio.wait([waiting], timeout=seconds)
        return waiting.result() if waiting.done() else None
    finally:
        waiting.cancel()


async def output(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /runs/{run_id}/output: a part of the output, or with `follow` all of it until the run ends."""
    run_id, query = run_id_of(request), request.query
    offset = whole_from(query.get("offset", "0"), "offset", 0, LARGEST_OFFSET)
    limit = whole_from(query.get("limit", str(DEFAULT_OUTPUT)), "limit", 1, LARGEST_OUTPUT)
    marks = flag_from(query.get("marks"), "marks")
    is_text = flag_from(query.get("text"), "text")
    if flag_from(query.get("follow"), "follow"):
        with api.permitted(request, api.service.outputs.following)():
            return await _follow(api, request, offset, marks, is_text)
    found = await api.call(request, api.service.outputs.open, run_id, request["actor"])
    stretch = await in_thread(found.stretch, offset)
    try:
        asked = range_from(request.headers.get("Range"), stretch.size)
        if asked is not None:
            offset, limit = asked[0], min(asked[1] - asked[0], LARGEST_OUTPUT)
            stretch = await in_thread(found.stretch, offset)
            if stretch.start >= asked[1]:
                raise RangeError(stretch.size)
            limit = min(limit, asked[1] - stretch.start)
    except RangeError as error:
        refused = answer({"detail": str(error)}, 416)
        refused.headers["Content-Range"] = f"bytes */{error.size}"
        return refused
    end = min(stretch.end, stretch.start + limit)
    response = _response(stretch, offset, is_text)
    response.headers["X-Output-Next-Offset"] = str(end)
    response.content_length = end - stretch.start
    if asked is not None:
        response.set_status(206)
        response.headers["Content-Range"] = f"bytes {stretch.start}-{end - 1}/{stretch.size}"
    reader = await in_thread(found.reader, stretch.start)
    await response.prepare(request)
    await send_stretch(Sender(request, response), reader, end)
    await response.write_eof()
    return response


async def _follow(api: Api, request: web.Request, offset: int, marks: bool, is_text: bool) -> web.StreamResponse:
    found = await api.call(request, api.service.outputs.open, run_id_of(request), request["actor"])
    stretch = await in_thread(found.stretch, offset)
    reader = await in_thread(found.reader, stretch.start)
    response = _response(stretch, offset, is_text)
    response.headers["X-Accel-Buffering"] = "no"  # nginx must not buffer it
    await response.prepare(request)
    await follow(Sender(request, response), found, reader, marks)
    await response.write_eof()
    return response


def _response(stretch: OutputRange, offset: int, is_text: bool) -> web.StreamResponse:
    """Return the response to a request for output from `offset` on. Its body begins at the start of `stretch`."""
    response = web.StreamResponse(headers=HEADERS)
    response.content_type = "text/plain" if is_text else "application/octet-stream"
    if is_text:
        response.charset = "utf-8"
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["X-Output-Size"] = str(stretch.size)
    response.headers["X-Output-Offset"] = str(stretch.start)
    response.headers["X-Output-Dropped"] = str(stretch.start - offset)
    return response


async def cancel(api: Api, request: web.Request) -> web.StreamResponse:
    """POST /runs/{run_id}/cancel: cancel a run, and wait for its end on request."""
    run_id = run_id_of(request)
    wait = wait_from(request.query.get("wait", "false"))
    reason = reason_from(await json_body(request, "reason"))
    cancellation = await api.call(request, api.service.runs.cancel, run_id, request["actor"], reason)
    is_accepted = cancellation.is_accepted
    run = await settled(cancellation.ordered)
    if is_accepted and run.status in UNFINISHED and wait != 0:
        run = await _within(wait, cancellation.ended) or run
    following = await api.call(request, api.service.runs.next_attempt, run)
    return answer(_cancelled(run, is_accepted, following), 202 if run.status in UNFINISHED else 200)


def _cancelled(run: Run, is_accepted: bool, following: Run | None) -> dict[str, Any]:
    is_done = is_accepted and run.status in (Status.CANCELLED, *UNFINISHED)
    message = "it is being ended" if run.status in UNFINISHED else "cancelled"
    if not is_done:
        message = f"it is over already: {_words(run.status)}"
        if following is not None:
            message += f"; the attempt that follows it, run {following.run_id}: {_words(following.status)}"
    return {
        "success": is_done,
        "run_id": run.run_id,
        "job_id": run.job_id,
        "status": run.status,
        "message": message,
    }


def _words(status: Status) -> str:
    return str(status).replace("_", " ")
