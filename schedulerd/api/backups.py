"""The handlers of backups; their routes stand with the others in `routes.py`."""

from __future__ import annotations

from aiohttp import web

from .app import Api
from .requests import flag_from, job_from, json_body, limit_from, reason_from
from .responses import answer, in_thread


async def list_backups(api: Api, request: web.Request) -> web.StreamResponse:
    """Answer with the catalogue, newest first; with the backups whose file is missing only when they are asked for."""
    query = request.query
    limit = limit_from(query["limit"]) if "limit" in query else None
    with_missing = flag_from(query.get("missing"), "missing")
    return answer(await in_thread(api.service.backups, job_from(query.get("job")), query.get("source"), limit, with_missing))


async def show_backup(api: Api, request: web.Request) -> web.StreamResponse:
    """Answer with one backup."""
    return answer(await in_thread(api.service.show_backup, _name(request)))


async def verify(api: Api, request: web.Request) -> web.StreamResponse:
    """Answer with a backup after it was read and compared."""
    await json_body(request)
    return answer(await in_thread(api.service.verify_backup, _name(request), request["actor"]))


async def hold(api: Api, request: web.Request) -> web.StreamResponse:
    """Answer with a backup that is on hold now."""
    reason = reason_from(await json_body(request, "reason"))
    return answer(await in_thread(api.service.hold_backup, _name(request), request["actor"], reason))


async def release(api: Api, request: web.Request) -> web.StreamResponse:
    """Answer with a backup that is on hold no more."""
    await json_body(request)
    return answer(await in_thread(api.service.release_backup, _name(request), request["actor"]))


async def accept(api: Api, request: web.Request) -> web.StreamResponse:
    """Answer with a backup whose oddness somebody has accepted."""
    reason = reason_from(await json_body(request, "reason"))
    return answer(await in_thread(api.service.accept_backup, _name(request), request["actor"], reason))


async def forget(api: Api, request: web.Request) -> web.StreamResponse:
    """Answer with a backup that was missing and is in the catalogue no more."""
    await json_body(request)
    return answer(await in_thread(api.service.forget_backup, _name(request), request["actor"]))


def _name(request: web.Request) -> str:
    return request.match_info["filename"]
