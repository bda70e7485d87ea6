"""The command `schedulerctl health`."""

from __future__ import annotations

from typing import Any

from ..core.units import format_duration
from .arguments import Commands, Options
from .client import Client
from .output import REFUSED, format_time, format_value, print_notes, print_result

HEALTHY = ("healthy", "not_configured")  # statuses of a service


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    health = commands.add("health", _health, "the last health check; the exit status is 1 unless everything is healthy")
    health.add_argument("--refresh", action="store_true", help="run the checks now")
    health.add_argument("--history", action="store_true", help="the previous checks instead")
    health.add_argument("--limit", type=int, default=20, help="with --history: number of checks, 1 to 100 (%(default)s)")


def _health(client: Client, options: Options) -> int:
    if options.history:
        return _history(client, options)
    health = client.get("health", refresh="true" if options.refresh else None)
    daemon = health["scheduler"]
    rows = [
        (name, service["status"], format_time(service.get("since")), format_value(service.get("latency_ms")),
         service.get("error") or "")
        for name, service in health["services"].items()
    ]  # fmt: skip
    rows.append(("scheduler", "healthy" if daemon["is_well"] else "degraded", "-", "-", "; ".join(_faults(daemon))))
    print_result(options, health, ("SERVICE", "STATUS", "SINCE", "MS", "ERROR"), rows)
    notes = [f"{health['status']}, checked {format_duration(health['age_seconds'])} ago"]
    if unenforced := [f"{job_id} ({', '.join(names)})" for job_id, names in daemon["limits_not_kept"].items()]:
        notes.append(f"note: limits that cannot be enforced without a delegated cgroup v2 subtree: {'; '.join(unenforced)}")
    print_notes(options, [*notes, _descriptors(daemon["descriptors"])])
    return 0 if health["status"] == "healthy" else REFUSED


def _faults(daemon: dict[str, Any]) -> list[str]:
    """Return what is wrong with the daemon itself, in words."""
    faults = [daemon[name] for name in ("store", "keepers") if daemon[name] != "ok"]
    if daemon["descriptors"]["trouble"]:
        faults.append(daemon["descriptors"]["trouble"])
    if backlog := daemon["backlog"]:
        since = format_time(backlog["since"])
        faults.append(f"{backlog['changes']} changes ({backlog['size_bytes']} bytes) wait to be written since {since}")
    if unwritten := daemon.get("unwritten"):
        waiting = f"{unwritten['due']} due occurrences and {unwritten['ends']} ended runs wait"
        faults.append(f"neither the store nor the outage journal can be written, so no run is started: {waiting}")
    faults += [daemon[name] for name in ("store_alarm", "config_copy_error") if daemon[name]]
    faults += daemon.get("troubles", ())
    if daemon["config_notice"]:
        faults += [daemon["config_notice"], *daemon["config_problems"]]
    return faults


def _descriptors(daemon: dict[str, Any]) -> str:
    processes = [("daemon", daemon), *(("keeper", keeper) for keeper in daemon["keepers"])]
    figures = [f"{name} {format_value(each['in_use'])} of {format_value(each['limit'])}" for name, each in processes]
    return f"file descriptors in use: {', '.join(figures)}"


def _history(client: Client, options: Options) -> int:
    checks = client.get("health/history", limit=options.limit)
    rows = [
        (format_time(check["checked_at"]), format_value(check["status"]), _unhealthy(check), _changes(check))
        for check in checks
    ]
    return print_result(options, checks, ("CHECKED", "STATUS", "NOT HEALTHY", "CHANGED"), rows)


def _unhealthy(check: dict[str, Any]) -> str:
    services = check["services"].items()
    return ", ".join(f"{name} {service['status']}" for name, service in services if service["status"] not in HEALTHY)


def _changes(check: dict[str, Any]) -> str:
    return ", ".join(f"{each['service']}: {each['from']} → {each['to']}" for each in check["changes"])
