"""The commands of `schedulerctl` about runs: start one, follow it, see what it wrote, end it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from .client import PREFIX, Client, ClientError, is_run_id, job_path, run_path
from .durations import format_duration
from .tables import REFUSED, Options, done, percent, plain, seconds, show
from .watching import Watch, watched

TIMED_OUT, DETACHED = 124, 130  # exit statuses
OF_SIGNALS = 128  # ... and the signal's number
WITH_OUTPUT = "queued,running,success,failed,timed_out,cancelled,abandoned"  # statuses
LARGEST_READ = 10 * 1024 * 1024  # bytes in one answer
LINE_BYTES = 200  # about so long is a line

Add = Callable[..., argparse.ArgumentParser]


def add_commands(add: Add) -> None:
    """Add the commands to the parser."""
    run = add("run", _run, "run a job now, wait for its end, and exit with its code", takes_job=True)
    run.add_argument("-p", "--param", action="append", type=_param, default=[], metavar="NAME=VALUE", help="a parameter")
    run.add_argument("-f", "--follow", action="store_true", help="show its output as it comes")
    run.add_argument("--no-wait", action="store_true", help="do not wait")
    run.add_argument("--wait", metavar="DURATION", help="wait no longer, such as 30s")
    logs = add("logs", _logs, "what a run has written, or the newest run of a job")
    logs.add_argument("run", metavar="RUN_ID|JOB")
    logs.add_argument("-f", "--follow", action="store_true", help="and what comes, until it ends")
    logs.add_argument("-n", "--lines", type=_lines, metavar="N", help="only the last N lines")
    cancel = add("cancel", _cancel, "end a run, or the newest run of a job")
    cancel.add_argument("run", metavar="RUN_ID|JOB")
    cancel.add_argument("--wait", action="store_true", help="wait until it has ended")
    cancel.add_argument("--reason", help="why")
    shown = add("show-run", _show_run, "one run")
    shown.add_argument("job", metavar="RUN_ID")
    add("running", _running, "what runs now")


def exit_code(run: dict[str, Any]) -> int:
    """Return what `run` exits with: 0 for a success, the job's own code, 128 and a signal's number, 124 at a timeout."""
    code = run.get("exit_code")
    if run["status"] == "success":
        return 0
    if run["status"] == "timed_out":
        return TIMED_OUT
    if not isinstance(code, int) or not code:
        return REFUSED
    return OF_SIGNALS - code if code < 0 else code


def _param(text: str) -> tuple[str, str]:
    name, is_given, value = text.partition("=")
    if not name or not is_given:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE")
    return name, value


def _lines(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _run(client: Client, options: Options) -> int:
    wait = "false" if options.no_wait or options.follow else options.wait
    body = {"params": dict(options.param)} if options.param else None
    answer = client.post(job_path(options.job, "trigger"), body, wait=wait).body
    if options.follow and answer["status"] not in ("skipped", "missed"):
        return _followed(client, options, answer["run_id"])
    print(json.dumps(answer, indent=2) if options.json else f"{options.job}: {answer['message']}")
    return 0 if answer["success"] else exit_code(answer["result"] or {"status": answer["status"]})


def _followed(client: Client, options: Options, run_id: str) -> int:
    """Show the output of a run as it comes, and return its exit code."""
    try:
        run = watched(client, run_id)
    except KeyboardInterrupt:
        print(
            f"\nschedulerctl: detached, the run goes on. To see it again: schedulerctl logs -f {run_id}"
            f"\n              to end it: schedulerctl cancel {run_id}",
            file=sys.stderr,
        )
        return DETACHED
    print(json.dumps(run, indent=2) if options.json else _ended(run), file=sys.stderr)
    return exit_code(run)


def _ended(run: dict[str, Any]) -> str:
    first = (run["error_message"] or "").partition("\n")[0]
    took = f" after {format_duration(run['duration_seconds'])}" if run["duration_seconds"] is not None else ""
    return f"{run['job_id']}: {run['status'].replace('_', ' ')}{took}" + (f": {first}" if first else "")


def _logs(client: Client, options: Options) -> int:
    run_id = _found(client, options.run)
    watch = Watch(client, run_id)
    if options.lines is not None:
        watch.show(_last_lines(client, watch, options.lines))
    elif not options.follow:
        _show_all(client, watch)
    if not options.follow:
        return 0
    try:
        watch.follow()
    except KeyboardInterrupt:
        return DETACHED
    return 0


def _found(client: Client, what: str) -> str:
    """Return a run's id as it is, and for a job that of its newest run."""
    if is_run_id(what):
        return what
    runs = client.get(job_path(what, "history"), limit=1, status=WITH_OUTPUT)
    if not runs:
        raise ClientError(f"the job {what!r} has not run yet", 404)
    run_id: str = runs[0]["run_id"]
    return run_id


def _show_all(client: Client, watch: Watch) -> None:
    """Show what there is now."""
    before, size = -1, 1
    while before < watch.offset < size:
        before = watch.offset
        with client.stream(f"{PREFIX}/{watch.path}", offset=watch.offset, limit=LARGEST_READ) as answer:
            size = int(answer.headers["x-output-size"])
            watch.take(answer)


def _last_lines(client: Client, watch: Watch, count: int) -> bytes:
    """Return the last `count` lines; the watch goes on behind them."""
    size = client.get(run_path(watch.run_id))["output_bytes"]
    most = max(1, count * LINE_BYTES)
    while True:
        data = b""
        watch.offset = start = max(0, size - most)
        while watch.offset < size and (piece := watch.fetch(min(LARGEST_READ, size - watch.offset))):
            data += piece
        lines = data.splitlines(keepends=True)
        if len(lines) > count or start == 0:
            return b"".join(lines[len(lines) - min(count, len(lines)) :])
        most *= 4


def _cancel(client: Client, options: Options) -> int:
    run_id = _found(client, options.run)
    body = {"reason": options.reason} if options.reason else None
    answer = client.post(run_path(run_id, "cancel"), body, wait="true" if options.wait else None)
    done(options, answer, run_id)
    return 0 if answer.body["success"] else REFUSED


def _show_run(client: Client, options: Options) -> int:
    run = client.get(run_path(options.job))
    return show(options, run, ("FIELD", "VALUE"), [(name, plain(value)) for name, value in run.items()])


def _running(client: Client, options: Options) -> int:
    runs = client.get("running")
    rows = [
        (run["job_id"], run["run_id"], run["origin"], run["started_at"], format_duration(run["running_seconds"]),
         percent(run["progress"]), seconds(run["eta_seconds"]))
        for run in runs
    ]  # fmt: skip
    return show(options, runs, ("JOB", "RUN", "ORIGIN", "STARTED", "SINCE", "PROGRESS", "ETA"), rows)
