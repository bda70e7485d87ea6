"""The routes: each is a line in ROUTES, a thin handler here, and a verb of the service whose role it needs.

One middleware, the outermost, decides who calls and what they may do before anything else is looked at, and turns every
error into JSON; a route cannot be reached around it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from ..core.errors import ForbiddenError, InvalidError, SchedulerdError, StoreError
from ..core.models import Actor, Role, Run, Status, to_text
from ..core.units import format_duration
from ..service.serializers import run_view, to_bytes
from ..service.service import Service
from . import backups, runs
from .callers import Callers
from .connections.limits import Gate
from .connections.protocol import begin, has_begun
from .requests import (
    flag_from,
    host_name,
    instant_from,
    job_from,
    json_body,
    key_from,
    limit_from,
    reason_from,
    run_id_from,
    statuses_from,
    wait_from,
    whole_from,
)
from .responses import (
    HEADERS,
    HTTP_REASONS,
    NOTICE,
    PREFIX,
    WrongHostError,
    answer,
    answer_bytes,
    error_response,
    http_error,
    in_thread,
    settled,
)

log = logging.getLogger(__name__)

MOST_DAYS = 400  # of stats
LARGEST_BODY = 64 * 1024  # bytes
SAFE_METHODS = frozenset({"GET", "HEAD"})
OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # answered without authentication: they tell nothing but ok

Handler = Callable[["Api", web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Route:
    """A way in: its verb's role is what the caller needs."""

    method: str
    path: str
    handler: Handler
    verb: Callable[..., Any]

    @property
    def role(self) -> Role:
        """Return the role of the verb; a verb without one fails when the app is built."""
        role: Role = self.verb.role  # type: ignore[attr-defined]
        return role


class Api:
    """The handlers; `callers` says who makes a request, or raises UnauthenticatedError."""

    def __init__(self, service: Service, callers: Callers, hosts: frozenset[str] | None) -> None:
        """`hosts` are the names that a Host header may have; None takes any (the Unix socket)."""
        self.service = service
        self.callers = callers
        self._hosts = hosts
        self._roles: dict[Any, Role] = {}
        self.gate: Gate | None = None  # the door's, once it is open

    def build(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._outermost], client_max_size=LARGEST_BODY)
        app.on_response_prepare.append(begin)
        for route in ROUTES:
            handler = _bound(self, route.handler)
            self._roles[handler] = route.role
            app.router.add_route(route.method, route.path, handler)
        for path in OPEN_PATHS:
            app.router.add_get(path, _bound(self, _OPEN[path]))
        return app

    @web.middleware
    async def _outermost(self, request: web.Request, handler: Any) -> web.StreamResponse:
        transport = request.transport
        try:
            if self.gate is not None:
                may_stream = request.method in SAFE_METHODS
                self.gate.head_came(transport, may_stream=may_stream, behind=self.callers.behind(request))
            self._check_host(request)
            if request.path not in OPEN_PATHS:
                request["actor"] = self._allow(request)
                self._check_start()
            if self.gate is not None:
                self.gate.check_share(transport)
            return await handler(request)  # type: ignore[no-any-return]
        except SchedulerdError as error:
            return _instead(request, error_response(error, request.get("actor")), error)
        except web.HTTPException as error:
            return _instead(request, http_error(error), error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:  # the edge of the API: the caller is told nothing of our insides, the log all
            if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
                raise  # who asked has gone away
            log.exception("%s %s failed", request.method, request.path)
            return _instead(request, answer({"detail": HTTP_REASONS[500]}, 500), error)
        finally:
            if self.gate is not None:
                self.gate.answered(transport)

    def _allow(self, request: web.Request) -> Actor:
        """Return the caller. Raise when they are unknown, may not use the route, or were sent by a page of another site."""
        actor = self.callers.identify(request)
        if self.gate is not None:
            self.gate.recognised(request.transport)
        role = self._roles.get(request.match_info.handler, Role.VIEWER)
        if actor.role < role:
            raise ForbiddenError(f"this needs the role {role.name.lower()}, {actor.name} is {actor.role.name.lower()}")
        if request.method not in SAFE_METHODS:
            self._check_origin(request)
        return actor

    def _check_start(self) -> None:
        if self.service.waits_for is not None:
            raise StoreError(f"the daemon waits for its history: {self.service.waits_for}")

    def _check_host(self, request: web.Request) -> None:
        if self._hosts is None:
            return
        given = request.headers.getall("Host", [])
        if len(given) != 1 or host_name(given[0]) not in self._hosts:
            raise WrongHostError("the Host header names no host of this daemon (see api.hosts in the configuration)")

    def _check_origin(self, request: web.Request) -> None:
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        same = origin is None or origin.partition("://")[2] == request.headers.get("Host")
        if not same or site not in ("same-origin", "none"):
            raise ForbiddenError("a page of another site may not change anything here")


def _bound(api: Api, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def call(request: web.Request) -> web.StreamResponse:
        return await handler(api, request)

    return call


# Handlers


async def _list_jobs(api: Api, request: web.Request) -> web.StreamResponse:
    body, etag = api.service.list_jobs()
    response = _tagged(request, body, etag)
    if notice := api.service.config_notice:
        response.headers[NOTICE] = notice
    return response


async def _show_job(api: Api, request: web.Request) -> web.StreamResponse:
    return answer_bytes(api.service.show_job(_job_id(request)))


async def _history(api: Api, request: web.Request) -> web.StreamResponse:
    job_id, query = _job_id(request), request.query
    limit = limit_from(query.get("limit"))
    statuses = statuses_from(query.getall("status", []))
    return answer(await in_thread(api.service.history, job_id, limit, run_id_from(query.get("before")), statuses))


async def _next(api: Api, request: web.Request) -> web.StreamResponse:
    count = limit_from(request.query.get("count"), "count")
    return answer(await in_thread(api.service.next_times, _job_id(request), count, request.query.get("after")))


async def _why(api: Api, request: web.Request) -> web.StreamResponse:
    return answer(await in_thread(api.service.why, _job_id(request), request.query.get("at")))


async def _simulate(api: Api, request: web.Request) -> web.StreamResponse:
    start, end = (instant_from(request.query.get(name), "query", name) for name in ("from", "to"))
    return answer_bytes(await in_thread(lambda: to_bytes(api.service.simulate(start, end))))


async def _trigger(api: Api, request: web.Request) -> web.StreamResponse:
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


async def _pause(api: Api, request: web.Request) -> web.StreamResponse:
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


async def _resume(api: Api, request: web.Request) -> web.StreamResponse:
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


async def _running(api: Api, _request: web.Request) -> web.StreamResponse:
    return answer(await in_thread(api.service.running))


async def _health(api: Api, request: web.Request) -> web.StreamResponse:
    if flag_from(request.query.get("refresh"), "refresh"):
        if request["actor"].role < Role.OPERATOR:
            raise ForbiddenError("a new check is a run: that needs the role operator")
        asked = [api.service.trigger(job_id, request["actor"]) for job_id in api.service.health_jobs()]
        for each in asked:
            await settled(each.done)
    return answer(await in_thread(api.service.health, request["actor"]))


async def _health_history(api: Api, request: web.Request) -> web.StreamResponse:
    query = request.query
    limit, before = limit_from(query.get("limit")), run_id_from(query.get("before"))
    return answer(await in_thread(api.service.health_history, job_from(query.get("job")), limit, before))


async def _stats(api: Api, request: web.Request) -> web.StreamResponse:
    days = whole_from(request.query.get("days", "0"), "days", 0, MOST_DAYS)
    return answer(await in_thread(api.service.stats, days, job_from(request.query.get("job"))))


async def _healthz(_api: Api, _request: web.Request) -> web.StreamResponse:
    return answer({"status": "ok"})


async def _readyz(api: Api, _request: web.Request) -> web.StreamResponse:
    found = api.service.readiness()
    return answer(found, 503 if found["status"] == "not ready" else 200)


_OPEN: dict[str, Handler] = {"/healthz": _healthz, "/readyz": _readyz}

ROUTES = (
    Route("GET", f"{PREFIX}/jobs", _list_jobs, Service.list_jobs),
    Route("GET", f"{PREFIX}/jobs/{{job_id}}", _show_job, Service.show_job),
    Route("GET", f"{PREFIX}/jobs/{{job_id}}/history", _history, Service.history),
    Route("GET", f"{PREFIX}/jobs/{{job_id}}/next", _next, Service.next_times),
    Route("GET", f"{PREFIX}/jobs/{{job_id}}/why", _why, Service.why),
    Route("GET", f"{PREFIX}/simulate", _simulate, Service.simulate),
    Route("POST", f"{PREFIX}/jobs/{{job_id}}/trigger", _trigger, Service.trigger),
    Route("POST", f"{PREFIX}/jobs/{{job_id}}/pause", _pause, Service.pause),
    Route("POST", f"{PREFIX}/jobs/{{job_id}}/resume", _resume, Service.resume),
    Route("GET", f"{PREFIX}/runs", runs.list_runs, Service.list_runs),
    Route("GET", f"{PREFIX}/runs/{{run_id}}", runs.show_run, Service.show_run),
    Route("GET", f"{PREFIX}/runs/{{run_id}}/output", runs.output, Service.read_output),
    Route("POST", f"{PREFIX}/runs/{{run_id}}/cancel", runs.cancel, Service.cancel),
    Route("GET", f"{PREFIX}/running", _running, Service.running),
    Route("GET", f"{PREFIX}/health", _health, Service.health),
    Route("GET", f"{PREFIX}/health/history", _health_history, Service.health_history),
    Route("GET", f"{PREFIX}/backups", backups.list_backups, Service.backups),
    Route("GET", f"{PREFIX}/backups/{{filename}}", backups.show_backup, Service.show_backup),
    Route("POST", f"{PREFIX}/backups/{{filename}}/verify", backups.verify, Service.verify_backup),
    Route("POST", f"{PREFIX}/backups/{{filename}}/hold", backups.hold, Service.hold_backup),
    Route("POST", f"{PREFIX}/backups/{{filename}}/release", backups.release, Service.release_backup),
    Route("POST", f"{PREFIX}/backups/{{filename}}/accept", backups.accept, Service.accept_backup),
    Route("POST", f"{PREFIX}/backups/{{filename}}/forget", backups.forget, Service.forget_backup),
    Route("GET", f"{PREFIX}/stats", _stats, Service.stats),
)


# What several handlers use


def _instead(request: web.Request, response: web.Response, error: Exception) -> web.Response:
    """Return the answer of an error. Where another one has begun, end the connection, so that it is not taken for whole."""
    if not has_begun(request):
        return response
    log.info("%s %s: the answer ends before it is whole: %s", request.method, request.path, error)
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("an answer has begun already") from error


def _tagged(request: web.Request, body: bytes, etag: str) -> web.Response:
    if request.headers.get("If-None-Match") == etag:
        response = web.Response(status=304, headers=HEADERS)
    else:
        response = answer_bytes(body)
    response.headers["ETag"] = etag
    return response


def _job_id(request: web.Request) -> str:
    return request.match_info["job_id"]
