"""The handlers of backups."""

from __future__ import annotations

from aiohttp import web

from .app import Api
from .requests import flag_from, job_from, json_body, limit_from, reason_from
from .responses import answer


async def list_backups(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /backups: the backups, newest first; missing ones are listed on request only."""
    query = request.query
    limit = limit_from(query["limit"]) if "limit" in query else None
    with_missing = flag_from(query.get("missing"), "missing")
    job_id, source = job_from(query.get("job")), query.get("source")
    return answer(await api.call(request, api.service.backups.list_backups, job_id, source, limit, with_missing))


async def show_backup(api: Api, request: web.Request) -> web.StreamResponse:
    """GET /backups/{filename}: one backup."""
    return answer(await api.call(request, api.service.backups.show, _name(request)))


async def verify(api: Api, request: web.Request) -> web.StreamResponse:
    """POST /backups/{filename}/verify: compare a backup with its checksum."""
    await json_body(request)
    return answer(await api.call(request, api.service.backups.verify, _name(request), request["actor"]))


async def hold(api: Api, request: web.Request) -> web.StreamResponse:
    """POST /backups/{filename}/hold: exempt a backup from retention."""
    reason = reason_from(await json_body(request, "reason"))
    return answer(await api.call(request, api.service.backups.hold, _name(request), request["actor"], reason))


async def release(api: Api, request: web.Request) -> web.StreamResponse:
    """POST /backups/{filename}/release: end the hold of a backup."""
    await json_body(request)
    return answer(await api.call(request, api.service.backups.release, _name(request), request["actor"]))


async def accept(api: Api, request: web.Request) -> web.StreamResponse:
    """POST /backups/{filename}/accept: accept a backup of unusual size as good."""
    reason = reason_from(await json_body(request, "reason"))
    return answer(await api.call(request, api.service.backups.accept, _name(request), request["actor"], reason))


async def forget(api: Api, request: web.Request) -> web.StreamResponse:
    """POST /backups/{filename}/forget: remove a missing backup from the catalogue."""
    await json_body(request)
    return answer(await api.call(request, api.service.backups.forget, _name(request), request["actor"]))


def _name(request: web.Request) -> str:
    return request.match_info["filename"]
