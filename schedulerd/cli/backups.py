"""The commands `schedulerctl backups …`."""

from __future__ import annotations

import argparse
import json
from typing import Any
from urllib.parse import quote

from ..core.units import BYTES
from .arguments import Command, Commands, Options
from .client import Client, ClientError, job_path
from .output import REFUSED, field_rows, format_time, print_result, printable_lines

MEGABYTE = BYTES["M"]
KEEP_EXIT_STATUS = ("hold", "release", "forget")  # commands that succeed for a backup in doubt, too


def add_commands(commands: Commands) -> None:
    """Add the commands to the parser."""
    parser = commands.add("backups", _list, "the backups of this host, newest first; verify, drill and hold them")
    verbs = Commands(parser, "VERB", required=False)
    for each in (parser, verbs.add("list", _list, "the backups, newest first")):
        each.add_argument("--job", default=argparse.SUPPRESS, help="of one job only")
        each.add_argument("--limit", type=int, default=argparse.SUPPRESS, help="number of backups, 1 to 100")
    verbs.add("show", _show, "everything that is recorded about a backup", "FILE")
    verbs.add(
        "verify",
        _change("verify"),
        "compare a backup with its SHA-256 checksum; the exit status is 1 if it is not good",
        "FILE",
    )
    verbs.add("drill", _drill, "run the restore drill of a job on its newest backup", "JOB")
    for verb, text in (
        ("hold", "keep a backup from being deleted by its retention"),
        ("accept", "accept a backup of unexpected size as good"),
    ):
        verbs.add(verb, _change(verb), text, "FILE").add_argument("--reason", help="why; it is recorded")
    verbs.add("release", _change("release"), "end the hold of a backup", "FILE")
    verbs.add("forget", _change("forget"), "remove a backup whose file is missing from the catalogue", "FILE")


def _list(client: Client, options: Options) -> int:
    query = {name: getattr(options, name, None) for name in ("job", "limit")}
    backups = client.get("backups", **query, missing="true")
    rows = [
        (backup["filename"], _size(backup["size_bytes"]), format_time(backup["created_at"]), backup["job_id"],
         _state(backup), "; ".join(backup["doubts"]))
        for backup in backups
    ]  # fmt: skip
    return print_result(options, backups, ("FILE", "SIZE", "CREATED", "JOB", "STATE", "DOUBTS"), rows)


def _size(size: int) -> str:
    """Return bytes in a unit that is easy to read: `240 B`, `1.5 KB`, `12.3 MB`."""
    return f"{size} B" if size < 1024 else f"{size / 1024:.1f} KB" if size < MEGABYTE else f"{size / MEGABYTE:.1f} MB"


def _state(backup: dict[str, Any]) -> str:
    if backup["is_missing"]:
        return "missing"
    if not backup["is_good"]:
        return "in doubt"
    words = ["proven" if backup["is_proven"] else "verified" if backup["verified"] else "good"]
    return ", ".join([*words, *(["held"] if backup["hold"] else [])])


def _show(client: Client, options: Options) -> int:
    backup = client.get(_path(options.file))
    return print_result(options, backup, ("FIELD", "VALUE"), field_rows(backup))


def _change(verb: str) -> Command:
    """Return the command that posts `verb` to a backup and prints its state afterwards."""

    def command(client: Client, options: Options) -> int:
        reason = getattr(options, "reason", None)
        backup = client.post(_path(options.file, verb), {"reason": reason} if reason else None).body
        state = "forgotten" if verb == "forget" else "; ".join(backup["doubts"]) or _state(backup)
        print(json.dumps(backup, indent=2) if options.json else printable_lines(f"{backup['filename']}: {state}"))
        return 0 if backup["is_good"] or verb in KEEP_EXIT_STATUS else REFUSED

    return command


def _drill(client: Client, options: Options) -> int:
    """Run the drills of a backup job, or the drill that is named."""
    jobs = [job["job_id"] for job in client.get("jobs") if options.job in (job["job_id"], job.get("restores"))]
    drills = [job for job in jobs if client.get(job_path(job)).get("restores")]
    if not drills:
        raise ClientError(f"no job is a restore drill of {options.job!r}: add one with restore_drill: {{of: …}}", 404)
    results = [client.post(job_path(job, "trigger")).body for job in drills]
    if options.json:
        print(json.dumps(results, indent=2))
    for result in results if not options.json else ():
        print(printable_lines(f"{result['job_id']}: {result['message']}"))
    return 0 if all(result["success"] for result in results) else REFUSED


def _path(filename: str, verb: str = "") -> str:
    return f"backups/{quote(filename, safe='')}" + (f"/{verb}" if verb else "")
