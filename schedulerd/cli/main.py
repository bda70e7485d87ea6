"""`schedulerctl`: arguments → request → print. Tables for people, `--json` for programs, errors that say what to do."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from .. import __version__
from ..core.clock import SystemClock
from ..core.errors import SchedulerdError
from ..core.models import to_text
from ..core.units import counted, parse_duration
from . import builtin, db
from . import runs as ctl_runs
from .client import NOTICE, Client, ClientError, is_run_id, job_path, run_path
from .explain import add_arguments, explained
from .output import (
    REFUSED,
    Options,
    done,
    fields,
    moment,
    plain,
    printable,
    printable_lines,
    remark,
    runs_table,
    seconds,
    show,
    waiting_text,
)

SOCKETS = ("/run/schedulerd/schedulerd.sock", "/var/lib/schedulerd/schedulerd.sock")
SOCKET_VARIABLE = "SCHEDULERD_SOCKET"
TOKEN_VARIABLE = "SCHEDULERD_TOKEN"  # noqa: S105 - a variable's name
UNREACHABLE, INTERRUPTED = 3, 130  # exit statuses; `run` hands on the job's own
EPILOG = """examples:
  schedulerctl list
  schedulerctl history nightly_backup --limit 5
  schedulerctl run nightly_backup          exits with the job's code
  schedulerctl run nightly_backup -f       ... and shows its output as it comes
  schedulerctl logs -f nightly_backup      the output of its newest run
  schedulerctl cancel nightly_backup
  schedulerctl backups --job nightly_backup
  schedulerctl backups verify FILE         also: show, drill, hold, release, accept, forget
  schedulerctl stats --days 30
  schedulerctl why nightly_backup 2026-10-25T02:30
  schedulerctl next nightly_backup --count 3
  schedulerctl explain --cron "30 2 * * *" --timezone Europe/Rome --after 2026-10-24
  schedulerctl db status                   also: migrate, backup, copy
  schedulerctl pause report --reason "the printer is away"
  SCHEDULERD_TOKEN=$(cat admin.token) schedulerctl --url http://127.0.0.1:8765 stats"""

Command = Callable[[Client, Options], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `schedulerctl`; return its exit status."""
    options = make_parser().parse_args(arguments)
    try:
        command: Command = options.command
        status = command(_client(options), options)
        sys.stdout.flush()  # here a reader that went away is seen to
        return status
    except SchedulerdError as error:
        print(printable_lines(f"schedulerctl: {error}"), file=sys.stderr)
        return UNREACHABLE if isinstance(error, ClientError) and not error.status else REFUSED
    except KeyboardInterrupt:
        print("\nschedulerctl: interrupted; what runs goes on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush does not fail again
        return 0


def _client(options: Options) -> Client:
    if options.url:
        if not options.url.startswith(("http://", "https://")):
            raise SchedulerdError(f"--url {options.url}: a URL such as http://127.0.0.1:8765 is needed")
        return Client(url=options.url, token=os.environ.get(TOKEN_VARIABLE))
    known = options.socket or os.environ.get(SOCKET_VARIABLE)
    return Client(path=known or next((each for each in SOCKETS if os.path.exists(each)), SOCKETS[0]))


def _list(client: Client, options: Options) -> int:
    answer = client.answer("jobs")
    if notice := answer.headers.get(NOTICE):
        print(printable(f"schedulerctl: {notice} (see schedulerctl health)"), file=sys.stderr)
    jobs = answer.body
    rows = [
        (job["job_id"], _state(job), moment(job["next_run_time"]), *_last(job["last_result"]), _note(job["pause"]))
        for job in jobs
    ]
    return show(options, jobs, ("JOB", "STATE", "NEXT", "LAST", "ENDED", "NOTE"), rows)


def _state(job: dict[str, Any]) -> str:
    words = [word for word, is_so in (("running", job["is_running"]), ("paused", job["is_paused"])) if is_so]
    words += [f"waiting ({job['queued']})"] if job["queued"] else []
    return ", ".join(words) or ("active" if job["enabled"] else "disabled")


def _note(pause: dict[str, Any] | None) -> str:
    """Return why a job is paused, and until when."""
    if pause is None:
        return ""
    until = moment(pause["until"]) if pause["until"] else "it is resumed"
    return f"paused until {until} by {pause['by']}" + (f": {pause['reason']}" if pause["reason"] else "")


def _last(result: dict[str, Any] | None) -> tuple[str, str]:
    return (result["status"], moment(result["finished_at"])) if result else ("-", "-")


def _show_job(client: Client, options: Options) -> int:
    job = client.get(run_path(options.job) if is_run_id(options.job) else job_path(options.job))
    return show(options, job, ("FIELD", "VALUE"), fields(job))


def _history(client: Client, options: Options) -> int:
    runs = client.get(job_path(options.job, "history"), limit=options.limit, status=options.status)
    return show(options, runs, *runs_table(runs))


def _next(client: Client, options: Options) -> int:
    found = client.get(job_path(options.job, "next"), count=options.count, after=options.after)
    rows = [(each["local"], each["at"], "; ".join(each["reasons"])) for each in found["times"]]
    show(options, found, ("LOCAL", "UTC", "REASON"), rows)
    skipped = (
        [f"{counted(len(found['skipped']), 'time')} in blackouts skipped in between (see --json)"]
        if found["skipped"]
        else []
    )
    return remark(options, [*skipped, *map(waiting_text, found["waiting"]), *found["notes"]])


def _why(client: Client, options: Options) -> int:
    found = client.get(job_path(options.job, "why"), at=options.at)
    rows = [(name, plain(found[name])) for name in ("at", "local", "trigger", "outcome", "reason")]
    rows += [("run", found["run"]["run_id"])] if found["run"] else []
    return show(options, found, ("FIELD", "VALUE"), rows)


def _simulate(client: Client, options: Options) -> int:
    found = client.get("simulate", **{"from": getattr(options, "from"), "to": options.to})
    rows = [
        (each["local"], each["job_id"], each["will"], seconds(each["expected_seconds"]), "; ".join(each["reasons"]))
        for each in found["timeline"][: options.limit]
    ]
    show(options, found, ("LOCAL", "JOB", "WILL", "TAKES", "REASON"), rows)
    skipped = sum(found["skips"].values())
    peak = f"at most {found['peak']['running']} at once" if found["peak"] else "nothing runs"
    notes = [f"{counted(found['starts'], 'start')} and {counted(skipped, 'skip')} until {found['played_until']}, {peak}"]
    if len(found["timeline"]) > len(rows):
        notes.append(f"the first {len(rows)} of {len(found['timeline'])} are shown (more: --limit N, or --json)")
    return remark(options, notes)


def _explain(_client: Client, options: Options) -> int:
    found = explained(options, SystemClock())
    rows = [(each["local"], each["at"], "; ".join(each["reasons"])) for each in found["times"]]
    if not options.json:
        print(found["trigger"] + (f" ({found['dst']})" if "dst" in found and found["dst"] not in found["trigger"] else ""))
    show(options, found, ("LOCAL", "UTC", "REASON"), rows)
    return 0 if rows else remark(options, ["it has no coming time"])


def _pause(client: Client, options: Options) -> int:
    body = {"reason": options.reason, "until": _until(options.until)}
    return done(options, client.post(job_path(options.job, "pause"), body), options.job)


def _until(text: str | None) -> str | None:
    """Return the time that a duration such as 2h leads to, or a time, which the daemon judges. Raise SchedulerdError."""
    if text is not None and not text[:1].isdigit():
        raise SchedulerdError(f"--until {text}: expected a duration such as 2h, or a time such as 2027-01-31T06:00:00Z")
    try:
        if text is None or text.isdigit():  # a number alone could be meant as anything
            return text
        return to_text(SystemClock().now() + timedelta(seconds=parse_duration(text)))
    except ValueError:
        return text


def _resume(client: Client, options: Options) -> int:
    return done(
        options, client.post(job_path(options.job, "resume"), catch_up="latest" if options.catch_up else None), options.job
    )


def _above_zero(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def make_parser() -> argparse.ArgumentParser:
    """Return what the command takes."""
    parser = argparse.ArgumentParser(
        prog="schedulerctl", description="Ask and steer schedulerd.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    places = f"{SOCKET_VARIABLE} in the environment, or the first there is of {', '.join(SOCKETS)}"
    parser.add_argument("--socket", metavar="PATH", help=f"the daemon's Unix socket (default: {places})")
    parser.add_argument("--url", help=f"the REST API instead, with the token in the environment variable {TOKEN_VARIABLE}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--version", action="version", version=f"schedulerctl {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str, takes_job: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
        if takes_job:
            sub.add_argument("job", metavar="JOB")
        return sub

    add("list", _list, "all jobs with their state, next time and last result")
    add("show", _show_job, "one job, or one run by its id", takes_job=True)
    history = add("history", _history, "what became of a job's occurrences and runs, newest first", takes_job=True)
    history.add_argument("--limit", type=int, default=10, help="1 to 100 (%(default)s)")
    history.add_argument("--status", help="only these, such as failed,missed")
    following = add("next", _next, "when a job starts next, and which rules had a say", takes_job=True)
    following.add_argument("--count", type=int, default=10, help="1 to 100 (%(default)s)")
    following.add_argument("--after", metavar="TIME", help="after this time (default: now); without a zone, the job's own")
    why = add("why", _why, "what became of an occurrence, and why", takes_job=True)
    why.add_argument(
        "at", nargs="?", metavar="TIME", help="such as 2026-10-25T02:30 of the job's zone (default: the last one)"
    )
    simulate = add("simulate", _simulate, "what will start in a stretch of time, for all jobs, with the expected load")
    simulate.add_argument("--from", metavar="TIME", help="such as 2026-10-25T00:00:00Z (default: now)")
    simulate.add_argument("--to", metavar="TIME", help="with its zone, too (default: a day later)")
    simulate.add_argument("--limit", type=_above_zero, default=50, help="how many lines are shown (%(default)s)")
    add_arguments(add("explain", _explain, "what an expression means and its coming times; asks no daemon"))
    ctl_runs.add_commands(add)
    db.add_commands(add)
    pause = add("pause", _pause, "start a job no more on its own", takes_job=True)
    pause.add_argument("--reason", help="why, for those who wonder later")
    pause.add_argument("--until", help="when it ends by itself, such as 2h or 2027-01-31T06:00:00Z")
    resume = add("resume", _resume, "start a job on its own again", takes_job=True)
    resume.add_argument("--catch-up", action="store_true", help="run now, once, what the pause skipped")
    builtin.add_commands(add)
    return parser
