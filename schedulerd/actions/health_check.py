"""The built-in `health_check`: probes PostgreSQL, Redis, the storage and all other targets, and reads figures of the host.

`GET /health` returns the `details` of the run. Each service has `since`, the time of the last change of its status. A change
is logged and listed in `changes`. It is found by comparison with the job's last check (`last_checks.py`), which is kept over
restarts of the daemon.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from ..config.settings_actions import SOURCE_SCHEMES
from ..config.settings_health import FailWhen
from ..core.models import Result, Status, to_text
from ..secrets.urls import mask_url
from .context import Context
from .last_checks import Check
from .probes import (
    DEGRADED,
    HEALTHY,
    NOT_CONFIGURED,
    UNHEALTHY,
    WORST_FIRST,
    Answer,
    Cut,
    ProbeError,
    above,
    backups,
    error_text,
    network,
    postgresql,
    redis,
    storage,
    system,
)
from .probes.runner import Planned, probe_all

log = logging.getLogger(__name__)

FOUNDING = ("postgresql", "redis", "storage")  # services that are always reported
_FOLDER = "storage:"  # prefix of a folder: one target of the service `storage`. Names of other targets have no colon
_SERVERS: Mapping[str, Callable[[str, float, Mapping[str, Any], Answer, Cut], Answer]] = {
    "postgresql": postgresql.probe, "redis": redis.probe,
}  # fmt: skip
_FAILING: Mapping[FailWhen, tuple[str, ...]] = {
    FailWhen.NEVER: (), FailWhen.UNHEALTHY: (UNHEALTHY,), FailWhen.DEGRADED: (UNHEALTHY, DEGRADED),
}  # fmt: skip


def run(context: Context) -> Result:
    """Probe all targets. The details have the format of `GET /health`, without `checked_at`."""
    before = context.checks.of(context.job.job_id)
    last = before.details if before is not None else {}
    found, now = check(context, last), context.clock.now()
    details = compared(found, last, now)
    context.checks.remember(Check(context.job.job_id, context.run.position, now, details, context.clock.monotonic()))
    for change in details["changes"]:
        log.log(*_line(context.job.job_id, change))
    services: Mapping[str, Answer] = details["services"]
    bad = [f"{name} is {one['status']}" for name, one in services.items() if one["status"] in (DEGRADED, UNHEALTHY)]
    is_failed = details["status"] in _FAILING[context.options["fail_when"]]
    status = Status.FAILED if is_failed else Status.SUCCESS
    return Result(status, len(services), "; ".join(bad) or None, details=details)


def _line(job_id: str, change: Mapping[str, str]) -> tuple[int, str]:
    level = logging.INFO if change["to"] == HEALTHY else logging.WARNING
    why = f": {change['error']}" if change.get("error") else ""
    return level, f"job {job_id}: {change['service']} is {change['to']}, was {change['from']}{why}"


def compared(details: dict[str, Any], before: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    """Return the details of a check with `since` for each service and the `changes` since the check `before`. Pure."""
    old: Mapping[str, Answer] = before.get("services") or {}
    now, changes = to_text(at), []
    services = {}
    for name, one in details["services"].items():
        last = old.get(name, {"status": NOT_CONFIGURED})
        is_same = last["status"] == one["status"]
        services[name] = (
            one if one["status"] == NOT_CONFIGURED else {**one, "since": last.get("since", now) if is_same else now}
        )
        if not is_same and NOT_CONFIGURED not in (last["status"], one["status"]):
            changes.append(
                {"service": name, "from": last["status"], "to": one["status"], "at": now, "error": one.get("error")}
            )
    return {**details, "services": services, "changes": changes}


def check(context: Context, last: Mapping[str, Any]) -> dict[str, Any]:
    """Return `status`, `services` and `system`. `last` has the details of the last check, or is empty."""
    targets = _targets(context.options, context.config.state_dir)
    before: Mapping[str, Answer] = last.get("services") or {}
    planned = {name: _planned(context, name, target, before.get(name, {})) for name, target in targets.items()}
    timeout = context.options["probe_timeout"]
    makers = {job_id: job for job_id, job in context.config.jobs.items() if job.action == "backup"}
    if makers:
        planned["backups"] = Planned(partial(backups.probe, makers, context.clock.now()), timeout, "backups")
    planned["system"] = Planned(system.probe, timeout, "system")
    answers = probe_all(planned, context.clock)
    figures = answers.pop("system")
    answers = {name: _within_latency(one, targets.get(name, {})) for name, one in answers.items()}
    folders = {name: answers.pop(name) for name in targets if name.startswith(_FOLDER)}
    answers["storage"] = storage.grouped({name.removeprefix(_FOLDER): one for name, one in folders.items()})
    services = {**{name: {"status": NOT_CONFIGURED} for name in FOUNDING}, **answers}
    return {"status": overall(services, targets), "services": services, "system": figures}


def overall(services: Mapping[str, Answer], targets: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the worst status of all services. An unhealthy target that is not critical counts as degraded. Pure."""
    found = set()
    for name, one in services.items():
        is_minor = one["status"] == UNHEALTHY and targets.get(name, {}).get("critical") is False
        found.add(DEGRADED if is_minor else one["status"])
    return next((each for each in WORST_FIRST if each in found), HEALTHY)


def _targets(options: Mapping[str, Any], state_dir: str) -> dict[str, dict[str, Any]]:
    """Return all targets by name: the built-in ones, with the thresholds of the check, and those in `targets`."""
    of_all = {"min_free_percent": options["min_free_percent"], "max_connections_percent": 90, "max_memory_percent": 90}
    found = {name: {**of_all, name: options[name]} for name in ("postgresql", "redis") if options[name]}
    for folder in options["storage"] or (state_dir,):  # a probe for each folder: one that hangs does not hide the others
        found[_FOLDER + folder] = {**of_all, "folder": folder}
    for name, target in options["targets"].items():
        found[name] = {**of_all, **{key: value for key, value in target.items() if value is not None}}
    return found


def _planned(context: Context, name: str, target: Mapping[str, Any], before: Answer) -> Planned:
    timeout = target.get("timeout") or context.options["probe_timeout"]
    return Planned(partial(_probe, context, target, before, timeout), timeout, f"{context.job.job_id}/{name}")


def _probe(context: Context, target: Mapping[str, Any], before: Answer, timeout: float, cut: Cut) -> Answer:
    """Probe one target. Passwords of its URL are masked in errors of the driver."""
    if "folder" in target:
        return storage.probe_one(target["folder"], target, context.run.run_id, cut)
    if "storage" in target:
        return storage.probe(target["storage"], target, context.run.run_id, cut)
    if "tcp" in target:
        return network.probe_tcp(target["tcp"], timeout, cut)
    kind = next(each for each in ("postgresql", "redis", "http") if each in target)
    url = context.url_of(target[kind])
    schemes = SOURCE_SCHEMES["health_check"].get(kind, ("http://", "https://"))
    if not url.startswith(schemes):
        raise ProbeError(f"the secret is no {' or '.join(schemes)} URL")
    try:
        if kind == "http":
            return network.probe_http(url, target["expect_status"], timeout, cut)
        return _SERVERS[kind](url, timeout, target, before, cut)
    except Exception as error:  # of any driver; the message is masked
        raise ProbeError(mask_url(error_text(error), url)) from None


def _within_latency(answer: Answer, target: Mapping[str, Any]) -> Answer:
    most = target.get("max_latency")
    slow = above("latency", answer.get("latency_ms"), most * 1000 if most else None, " ms")
    if slow is None or answer["status"] != HEALTHY:
        return answer
    return {**answer, "status": DEGRADED, "error": slow}
