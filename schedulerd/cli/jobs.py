"""The commands of `schedulerctl` about jobs: list, show, history, next, why, simulate, pause, resume."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

from ..core.clock import SystemClock
from ..core.errors import SchedulerdError
from ..core.units import counted, parse_duration
from .arguments import Commands, Options, positive_number
from .client import NOTICE, Client, is_run_id, job_path, run_path
from .output import (
    field_rows,
    format_seconds,
    format_time,
    format_value,
    format_waiting,
    print_change,
    print_notes,
    print_result,
    printable,
    runs_table,
)


def add_commands(commands: Commands) -> None:
    """Add the commands to the parser."""
    commands.add("list", _list, "all jobs with their state, next time and last result")
    commands.add("show", _show, "one job, or one run by its id", "JOB")
    history = commands.add("history", _history, "the runs of a job, also skipped and missed, newest first", "JOB")
    history.add_argument("--limit", type=int, default=10, help="number of runs, 1 to 100 (%(default)s)")
    history.add_argument("--status", help="only runs with these statuses, such as failed,missed")
    following = commands.add("next", _next, "the next times of a job, and the rules that determine them", "JOB")
    following.add_argument("--count", type=int, default=10, help="number of times, 1 to 100 (%(default)s)")
    following.add_argument(
        "--after", metavar="TIME", help="only times after this one (default: now); without an offset, in the job's timezone"
    )
    why = commands.add("why", _why, "what happened to an occurrence, and by which rule", "JOB")
    why.add_argument(
        "at", nargs="?", metavar="TIME", help="such as 2026-10-25T02:30 in the job's timezone (default: the last occurrence)"
    )
    simulate = commands.add("simulate", _simulate, "all starts in a window of time, with the expected load")
    simulate.add_argument("--from", metavar="TIME", help="such as 2026-10-25T00:00:00Z (default: now)")
    simulate.add_argument("--to", metavar="TIME", help="with its offset (default: one day later)")
    simulate.add_argument("--limit", type=positive_number, default=50, help="number of lines (%(default)s)")
    pause = commands.add("pause", _pause, "pause a job: its trigger starts no runs until it is resumed", "JOB")
    pause.add_argument("--reason", help="why; it is recorded")
    pause.add_argument("--until", help="when the pause expires, such as 2h or 2027-01-31T06:00:00Z")
    resume = commands.add("resume", _resume, "resume a paused job", "JOB")
    resume.add_argument("--catch-up", action="store_true", help="run the job once now if occurrences were skipped")


def _list(client: Client, options: Options) -> int:
    response = client.get_response("jobs")
    if notice := response.headers.get(NOTICE):
        print(printable(f"schedulerctl: {notice} (see schedulerctl health)"), file=sys.stderr)
    jobs = response.body
    rows = [
        (job["job_id"], _state(job), format_time(job["next_run_time"]), *_last(job["last_result"]), _note(job["pause"]))
        for job in jobs
    ]
    return print_result(options, jobs, ("JOB", "STATE", "NEXT", "LAST", "ENDED", "NOTE"), rows)


def _state(job: dict[str, Any]) -> str:
    words = [word for word, is_so in (("running", job["is_running"]), ("paused", job["is_paused"])) if is_so]
    words += [f"waiting ({job['queued']})"] if job["queued"] else []
    return ", ".join(words) or ("active" if job["enabled"] else "disabled")


def _note(pause: dict[str, Any] | None) -> str:
    """Return why a job is paused, and until when."""
    if pause is None:
        return ""
    until = format_time(pause["until"]) if pause["until"] else "it is resumed"
    return f"paused until {until} by {pause['by']}" + (f": {pause['reason']}" if pause["reason"] else "")


def _last(result: dict[str, Any] | None) -> tuple[str, str]:
    return (result["status"], format_time(result["finished_at"])) if result else ("-", "-")


def _show(client: Client, options: Options) -> int:
    job = client.get(run_path(options.job) if is_run_id(options.job) else job_path(options.job))
    return print_result(options, job, ("FIELD", "VALUE"), field_rows(job))


def _history(client: Client, options: Options) -> int:
    runs = client.get(job_path(options.job, "history"), limit=options.limit, status=options.status)
    return print_result(options, runs, *runs_table(runs))


def _next(client: Client, options: Options) -> int:
    found = client.get(job_path(options.job, "next"), count=options.count, after=options.after)
    rows = [(each["local"], each["at"], "; ".join(each["reasons"])) for each in found["times"]]
    print_result(options, found, ("LOCAL", "UTC", "REASON"), rows)
    count = len(found["skipped"])
    skipped = [f"{counted(count, 'time')} in blackouts skipped in between (see --json)"] if count else []
    return print_notes(options, [*skipped, *map(format_waiting, found["waiting"]), *found["notes"]])


def _why(client: Client, options: Options) -> int:
    found = client.get(job_path(options.job, "why"), at=options.at)
    rows = [(name, format_value(found[name])) for name in ("at", "local", "trigger", "outcome", "reason")]
    rows += [("run", found["run"]["run_id"])] if found["run"] else []
    return print_result(options, found, ("FIELD", "VALUE"), rows)


def _simulate(client: Client, options: Options) -> int:
    found = client.get("simulate", **{"from": getattr(options, "from"), "to": options.to})
    rows = [
        (each["local"], each["job_id"], each["will"], format_seconds(each["expected_seconds"]), "; ".join(each["reasons"]))
        for each in found["timeline"][: options.limit]
    ]
    print_result(options, found, ("LOCAL", "JOB", "WILL", "TAKES", "REASON"), rows)
    skipped = sum(found["skips"].values())
    peak = f"at most {found['peak']['running']} at once" if found["peak"] else "nothing runs"
    notes = [f"{counted(found['starts'], 'start')} and {counted(skipped, 'skip')} until {found['played_until']}, {peak}"]
    if len(found["timeline"]) > len(rows):
        notes.append(f"the first {len(rows)} of {len(found['timeline'])} are shown (more: --limit N, or --json)")
    return print_notes(options, notes)


def _pause(client: Client, options: Options) -> int:
    body = {"reason": options.reason, "until": _until(options.until)}
    return print_change(options, client.post(job_path(options.job, "pause"), body), options.job)


def _until(text: str | None) -> str | None:
    """Return the end of a duration such as 2h that begins now; return a time as it is, for the daemon to check.

    Raise SchedulerdError for a text that can be neither.
    """
    if text is not None and not text[:1].isdigit():
        raise SchedulerdError(f"--until {text}: expected a duration such as 2h, or a time such as 2027-01-31T06:00:00Z")
    try:
        if text is None or text.isdigit():  # a number without a unit is ambiguous: the daemon refuses it
            return text
        return (SystemClock().now() + timedelta(seconds=parse_duration(text))).isoformat()
    except ValueError:
        return text


def _resume(client: Client, options: Options) -> int:
    response = client.post(job_path(options.job, "resume"), catch_up="latest" if options.catch_up else None)
    return print_change(options, response, options.job)
