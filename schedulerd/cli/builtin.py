"""The commands of `schedulerctl` about what the built-in jobs find and make: health, backups, statistics."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from ..core.units import BYTES, format_duration
from .client import Client, ClientError, job_path
from .output import REFUSED, Options, fields, moment, plain, printable_lines, remark, seconds, show

Add = Callable[..., argparse.ArgumentParser]
MEGABYTE = BYTES["M"]
_WITHOUT_TODAY = "today is not counted: a day is, when it is over and analytics has run"
_NOT_YET = f"nothing is known of these days yet: {_WITHOUT_TODAY}"


def add_commands(add: Add) -> None:
    """Add the commands to the parser."""
    health = add("health", _health, "the last health check; exits with 1 when something is not healthy")
    health.add_argument("--refresh", action="store_true", help="check now")
    health.add_argument("--history", action="store_true", help="the last checks instead")
    health.add_argument("--limit", type=int, default=20, help="of --history: 1 to 100 (%(default)s)")
    _add_backups(add("backups", _list, "the backups of this host, newest first; verify, drill and hold them"))
    stats = add("stats", _stats, "counts, success rate, lateness, uptime")
    stats.add_argument("--days", type=int, metavar="N", help="and what analytics knows of the last N days")
    stats.add_argument("--job", help="of one job only")


def _add_backups(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB")

    def verb(name: str, command: Callable[[Client, Options], int], text: str, what: str | None) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
        if what is not None:
            sub.add_argument("what", metavar=what)
        return sub

    for place in (parser, verb("list", _list, "the backups, newest first", None)):
        place.add_argument("--job", default=argparse.SUPPRESS, help="of one job only")
        place.add_argument("--limit", type=int, default=argparse.SUPPRESS, help="1 to 100")
    verb("show", _show, "all that is known of a backup", "FILE")
    verb("verify", _changed("verify"), "read a backup, and compare its SHA-256; exits with 1 when it is not good", "FILE")
    verb("drill", _drill, "restore the newest backup of a job aside, by the restore drill of that job", "JOB")
    for name, text in (("hold", "keep a backup whatever keep: says"), ("accept", "take a backup of odd size for good")):
        verb(name, _changed(name), text, "FILE").add_argument("--reason", help="why, for those who wonder later")
    verb("release", _changed("release"), "end the hold of a backup", "FILE")
    verb("forget", _changed("forget"), "take a backup whose file is missing off the list", "FILE")


# Health


def _health(client: Client, options: Options) -> int:
    if options.history:
        return _history(client, options)
    health = client.get("health", refresh="true" if options.refresh else None)
    rows: list[tuple[str, ...]] = [
        (name, one["status"], moment(one.get("since")), plain(one.get("latency_ms")), one.get("error") or "")
        for name, one in health["services"].items()
    ]
    rows.append(_of_the_daemon(health["scheduler"]))
    show(options, health, ("SERVICE", "STATUS", "SINCE", "MS", "ERROR"), rows)
    unkept = [f"{job_id} ({', '.join(names)})" for job_id, names in health["scheduler"]["limits_not_kept"].items()]
    notes = [f"note: limits that are not kept here, see Control groups in the README: {'; '.join(unkept)}"] if unkept else []
    notes.append(_descriptors(health["scheduler"]["descriptors"]))
    remark(options, [f"{health['status']}, checked {format_duration(health['age_seconds'])} ago", *notes])
    return 0 if health["status"] == "healthy" else REFUSED


def _of_the_daemon(own: dict[str, Any]) -> tuple[str, ...]:
    wrong = [own["store"]] if own["store"] != "ok" else []
    wrong += [own["keepers"]] if own["keepers"] != "ok" else []
    wrong += [own["descriptors"]["trouble"]] if own["descriptors"]["trouble"] else []
    if own["backlog"]:
        backlog = own["backlog"]
        wrong.append(f"{backlog['changes']} changes ({backlog['size_bytes']} bytes) wait since {moment(backlog['since'])}")
    if own.get("unwritten"):
        due, ends = own["unwritten"]["due"], own["unwritten"]["ends"]
        wrong.append(f"nothing can be written down, so nothing is started: {due} occurrences are due, {ends} ends wait")
    wrong += [own["store_alarm"]] if own["store_alarm"] else []
    wrong += [own["config_copy_error"]] if own["config_copy_error"] else []
    wrong += own.get("troubles", ())
    wrong += [own["config_notice"], *own["config_problems"]] if own["config_notice"] else []
    return "scheduler", "healthy" if own["is_well"] else "degraded", "-", "-", "; ".join(wrong)


def _descriptors(told: dict[str, Any]) -> str:
    figures = [f"{who} has {plain(one['in_use'])} of {plain(one['limit'])}"
               for who, one in [("the daemon", told), *(("a keeper", each) for each in told["keepers"])]]  # fmt: skip
    return f"descriptors: {', '.join(figures)}"


def _history(client: Client, options: Options) -> int:
    points = client.get("health/history", limit=options.limit)
    rows = [(moment(point["checked_at"]), plain(point["status"]), _ill(point), _changes(point)) for point in points]
    return show(options, points, ("CHECKED", "STATUS", "NOT HEALTHY", "CHANGED"), rows)


def _ill(point: dict[str, Any]) -> str:
    well = ("healthy", "not_configured")
    return ", ".join(f"{name} {one['status']}" for name, one in point["services"].items() if one["status"] not in well)


def _changes(point: dict[str, Any]) -> str:
    return ", ".join(f"{each['service']}: {each['from']} → {each['to']}" for each in point["changes"])


# Backups


def _list(client: Client, options: Options) -> int:
    query = {name: getattr(options, name, None) for name in ("job", "limit")}
    backups = client.get("backups", **query, missing="true")
    rows = [
        (
            one["filename"],
            _size(one["size_bytes"]),
            moment(one["created_at"]),
            one["job_id"],
            _state(one),
            "; ".join(one["doubts"]),
        )
        for one in backups
    ]
    return show(options, backups, ("FILE", "SIZE", "CREATED", "JOB", "STATE", "DOUBTS"), rows)


def _size(size: int) -> str:
    """Return bytes as people read them: `240 B`, `1.5 KB`, `12.3 MB`."""
    return f"{size} B" if size < 1024 else f"{size / 1024:.1f} KB" if size < MEGABYTE else f"{size / MEGABYTE:.1f} MB"


def _state(backup: dict[str, Any]) -> str:
    if backup["is_missing"]:
        return "missing"
    if not backup["is_good"]:
        return "in doubt"
    words = ["proven" if backup["is_proven"] else "verified" if backup["verified"] else "good"]
    return ", ".join([*words, *(["held"] if backup["hold"] else [])])


def _show(client: Client, options: Options) -> int:
    backup = client.get(_path(options.what))
    return show(options, backup, ("FIELD", "VALUE"), fields(backup))


def _changed(verb: str) -> Callable[[Client, Options], int]:
    def command(client: Client, options: Options) -> int:
        reason = getattr(options, "reason", None)
        backup = client.post(_path(options.what, verb), {"reason": reason} if reason else None).body
        told = "forgotten" if verb == "forget" else "; ".join(backup["doubts"]) or _state(backup)
        print(json.dumps(backup, indent=2) if options.json else printable_lines(f"{backup['filename']}: {told}"))
        return 0 if backup["is_good"] or verb in ("hold", "release", "forget") else REFUSED

    return command


def _drill(client: Client, options: Options) -> int:
    """Run the drills of a backup job, or the drill that is named."""
    jobs = [job["job_id"] for job in client.get("jobs") if options.what in (job["job_id"], job.get("restores"))]
    drills = [job for job in jobs if client.get(job_path(job)).get("restores")]
    if not drills:
        raise ClientError(f"no job is a restore drill of {options.what!r}: add one with restore_drill: {{of: …}}", 404)
    answers = [client.post(job_path(job, "trigger")).body for job in drills]
    if options.json:
        print(json.dumps(answers, indent=2))
    for answer in answers if not options.json else ():
        print(printable_lines(f"{answer['job_id']}: {answer['message']}"))
    return 0 if all(answer["success"] for answer in answers) else REFUSED


def _path(filename: str, verb: str = "") -> str:
    return f"backups/{quote(filename, safe='')}" + (f"/{verb}" if verb else "")


# Statistics


def _stats(client: Client, options: Options) -> int:
    stats = client.get("stats", days=options.days, job=options.job)
    days, anomalies = stats.get("days"), stats.get("anomalies", {})
    if days is None:
        return show(options, stats, ("FIGURE", "VALUE"), fields(stats))
    rows = [_day_row(day, job_id, one) for day in days for job_id, one in day["jobs"].items()]
    show(options, stats, ("DAY", "JOB", "SUCCESS", "OTHER", "RECORDS", "P50", "P95", "MAX", "LATE P95", "OUTPUT"), rows)
    remark(options, [f"{job_id}: {why}" for job_id, reasons in anomalies.items() for why in reasons])
    return remark(options, [_NOT_YET if not rows else _WITHOUT_TODAY])


def _day_row(day: dict[str, Any], job_id: str, one: dict[str, Any]) -> tuple[str, ...]:
    success = one["runs"].get("success", 0)
    return (
        day["day"], job_id, str(success), str(sum(one["runs"].values()) - success), str(one["records_processed"]),
        seconds(one["duration_p50"]), seconds(one["duration_p95"]), seconds(one["duration_max"]),
        seconds(one["lateness_p95"]), f"{one['output_bytes'] / MEGABYTE:.1f} MB",
    )  # fmt: skip
