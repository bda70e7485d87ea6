"""The commands of `schedulerctl` about runs: run, logs, cancel, running."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..core.clock import SystemClock
from ..core.units import counted, format_duration
from .arguments import Commands, Options, duration, parameter, whole_number
from .client import PREFIX, Client, ClientError, is_run_id, job_path, run_path
from .follow import TEMPORARY, OutputFollower, follow_run, wait_for_end
from .output import (
    REFUSED,
    format_percent,
    format_seconds,
    format_time,
    format_waiting,
    print_change,
    print_notes,
    print_result,
    printable_lines,
)
from .terminal import Controls

NOT_ENDED, TIMED_OUT, DETACHED = 75, 124, 130  # exit statuses; 75 is EX_TEMPFAIL of sysexits.h
SIGNALLED = 128  # added to the number of a signal, as shells do
UNAVAILABLE = 503  # HTTP status
WITH_OUTPUT = "queued,running,success,failed,timed_out,cancelled,abandoned"  # statuses
LARGEST_READ = 10 * 1024 * 1024  # bytes in one response
LINE_BYTES = 200  # estimated length of a line


def add_commands(commands: Commands) -> None:
    """Add the commands to the parser."""
    run = commands.add("run", _run, "run a job now, wait for its end, and exit with its exit status", "JOB")
    run.add_argument(
        "-p",
        "--param",
        action="append",
        type=parameter,
        default=[],
        metavar="NAME=VALUE",
        help="a parameter (repeatable)",
    )
    waiting = run.add_mutually_exclusive_group()
    waiting.add_argument("-f", "--follow", action="store_true", help="show its output")
    waiting.add_argument("--no-wait", action="store_true", help="do not wait for its end")
    waiting.add_argument(
        "--wait", type=duration, metavar="DURATION", help=f"wait at most this long, such as 30s; then exit with {NOT_ENDED}"
    )
    _add_controls(run)
    logs = commands.add("logs", _logs, "the output of a run, or of the newest run of a job")
    logs.add_argument("run", metavar="RUN_ID|JOB")
    logs.add_argument("-f", "--follow", action="store_true", help="show further output until the run ends")
    logs.add_argument("-n", "--lines", type=whole_number, metavar="N", help="only the last N lines")
    _add_controls(logs)
    cancel = commands.add("cancel", _cancel, "cancel a run, or the newest run of a job")
    cancel.add_argument("run", metavar="RUN_ID|JOB")
    cancel.add_argument("--wait", action="store_true", help="wait until it has ended")
    cancel.add_argument("--reason", help="why; it is recorded")
    commands.add("running", _running, "the runs that are running, and what queued runs wait for")


def _add_controls(parser: argparse.ArgumentParser) -> None:
    """Add the options about control characters in output on a terminal."""
    controls = parser.add_mutually_exclusive_group()
    controls.add_argument(
        "--color", dest="controls", action="store_const", const=Controls.COLOUR, default=Controls.SHOW,
        help="on a terminal, pass colours through; other control characters are shown, such as ^[",
    )  # fmt: skip
    controls.add_argument(
        "--raw", dest="controls", action="store_const", const=Controls.RAW, default=Controls.SHOW,
        help="on a terminal, pass all control characters through (unsafe: they can control the terminal)",
    )  # fmt: skip


def exit_code(run: dict[str, Any]) -> int:
    """Return the exit status for a run that has ended.

    0 for a success, 124 for a timeout, the exit status of the job, 128 + the number of the signal that ended it, or else 1.
    """
    code = run.get("exit_code")
    if run["status"] == "success":
        return 0
    if run["status"] == "timed_out":
        return TIMED_OUT
    if not isinstance(code, int) or not code:
        return REFUSED
    return SIGNALLED - code if code < 0 else code


def _run(client: Client, options: Options) -> int:
    body = {"params": dict(options.param)} if options.param else None
    triggered = client.post(job_path(options.job, "trigger"), body, wait="false").body
    if options.no_wait or triggered["status"] in ("skipped", "missed"):
        suffix = f", as run {triggered['run_id']}" if triggered["success"] else ""
        message = f"{options.job}: {triggered['message']}{suffix}"
        print(json.dumps(triggered, indent=2) if options.json else printable_lines(message))
        return 0 if triggered["success"] else exit_code(triggered["result"])
    try:
        run = _last_attempt(client, options, triggered["run_id"])
    except KeyboardInterrupt:
        return DETACHED
    if run is None:
        if options.json:
            print(json.dumps(triggered, indent=2))
        return NOT_ENDED
    if options.follow:
        print(json.dumps(run, indent=2) if options.json else _first_line(_result(run)), file=sys.stderr)
    else:
        print(json.dumps(_trigger_result(run), indent=2) if options.json else _result(run))
    return exit_code(run)


def _last_attempt(client: Client, options: Options, run_id: str) -> dict[str, Any] | None:
    """Wait for the end of a run and of its retries; return the last attempt, or None if that takes longer than --wait.

    If the wait ends early, print the commands that follow or cancel the run.
    """
    until = None if options.wait is None else SystemClock().monotonic() + options.wait
    try:
        while (
            run := follow_run(client, run_id, options.controls) if options.follow else wait_for_end(client, run_id, until)
        ) is not None:
            if "retry" not in run["details"]:
                return run
            run_id, at = run["details"]["retry"], run["details"]["retry_at"]
            print(f"{_first_line(_result(run))}; next attempt at {at}, as run {run_id}", file=sys.stderr, flush=True)
        _print_detached(run_id, f"not ended within {format_duration(options.wait)}, the run continues")
        return None
    except KeyboardInterrupt:
        print(file=sys.stderr)
        _print_detached(run_id, "detached, the run continues")
        raise
    except ClientError as error:
        if error.status in TEMPORARY:
            _print_detached(run_id, "the daemon does not answer, the run may continue")
        raise


def _print_detached(run_id: str, reason: str) -> None:
    print(
        f"schedulerctl: {reason}. To follow it: schedulerctl logs -f {run_id}"
        f"\n              to cancel it: schedulerctl cancel {run_id}",
        file=sys.stderr,
    )


def _trigger_result(run: dict[str, Any]) -> dict[str, Any]:
    """Return a run that has ended in the form of the response to a trigger request."""
    return {
        "success": run["status"] == "success",
        "job_id": run["job_id"],
        "status": run["status"],
        "message": _result(run).removeprefix(f"{run['job_id']}: "),
        "result": run,
        "run_id": run["run_id"],
    }


def _result(run: dict[str, Any]) -> str:
    """Return how a run ended, in words."""
    status = "succeeded" if run["status"] == "success" else run["status"].replace("_", " ")
    duration = f" after {format_duration(run['duration_seconds'])}" if run["duration_seconds"] is not None else ""
    message = run["error_message"] or run["details"].get("message")
    return printable_lines(f"{run['job_id']}: {status}{duration}" + (f": {message}" if message else ""))


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _logs(client: Client, options: Options) -> int:
    run_id = _newest_run(client, options.run)
    follower = OutputFollower(client, run_id, options.controls)
    try:
        if options.lines is not None:
            _write_last(client, follower, options.lines)
        elif not options.follow:
            _write_all(client, follower)
        if options.follow:
            follower.follow()
    finally:
        follower.terminal.end()
    return 0


def _newest_run(client: Client, name: str) -> str:
    """Return `name` if it is the id of a run, otherwise the id of the newest run of that job."""
    if is_run_id(name):
        return name
    try:
        runs = client.get(job_path(name, "history"), limit=1, status=WITH_OUTPUT)
    except ClientError as error:  # the history cannot be read: the daemon knows the running runs without it
        runs = [run for run in client.get("running") if run["job_id"] == name][-1:] if error.status == UNAVAILABLE else []
        if not runs:
            raise
    if not runs:
        raise ClientError(f"the job {name!r} has not run yet", 404)
    run_id: str = runs[0]["run_id"]
    return run_id


def _write_all(client: Client, follower: OutputFollower) -> None:
    """Write the output up to its present end."""
    before, size = -1, 1
    while before < follower.offset < size:
        before = follower.offset
        with client.stream(f"{PREFIX}/{follower.path}", offset=follower.offset, limit=LARGEST_READ) as stream:
            size = int(stream.headers["x-output-size"])
            follower.write_stream(stream)


def _write_last(client: Client, follower: OutputFollower, count: int) -> None:
    """Write the last `count` lines, and report what was dropped between them; the follower continues after them."""
    pieces = _last_pieces(client, follower, count)
    text = b"".join(data for _, data in pieces)
    lines = text.splitlines(keepends=True)
    skipped = len(text) - sum(map(len, lines[len(lines) - min(count, len(lines)) :]))
    position = 0
    for dropped, data in pieces:
        if position > skipped:
            follower.report_dropped(dropped)
        follower.terminal.write(data[max(0, skipped - position) :])
        position += len(data)


def _last_pieces(client: Client, follower: OutputFollower, count: int) -> list[tuple[int, bytes]]:
    """Return the end of an output, with more than `count` lines or from its beginning, as pieces of `fetch`."""
    size = client.get(run_path(follower.run_id))["output_bytes"]
    length = max(1, count * LINE_BYTES)
    while True:
        pieces: list[tuple[int, bytes]] = []
        follower.offset = start = max(0, size - length)
        while follower.offset < size and (piece := follower.fetch(min(LARGEST_READ, size - follower.offset)))[1]:
            pieces.append(piece)
        if start == 0 or len(b"".join(data for _, data in pieces).splitlines()) > count:
            return pieces
        length *= 4


def _cancel(client: Client, options: Options) -> int:
    run_id = _newest_run(client, options.run)
    body = {"reason": options.reason} if options.reason else None
    response = client.post(run_path(run_id, "cancel"), body, wait="true" if options.wait else None)
    print_change(options, response, run_id)
    return 0 if response.body["success"] else REFUSED


def _running(client: Client, options: Options) -> int:
    runs = client.get("running")
    rows = [
        (run["job_id"], run["run_id"], run["origin"], format_time(run["started_at"]),
         format_duration(run["running_seconds"]), format_percent(run["progress"]), format_seconds(run["eta_seconds"]))
        for run in runs
    ]  # fmt: skip
    print_result(options, runs, ("JOB", "RUN", "ORIGIN", "STARTED", "SINCE", "PROGRESS", "ETA"), rows)
    waiting = [] if options.json else [job for job in client.get("jobs") if job["queued"]]
    return print_notes(options, [line for job in waiting for line in _wait_lines(client, job)])


def _wait_lines(client: Client, job: dict[str, Any]) -> list[str]:
    """Return a line for each queued run of a job, with its wait reasons."""
    queued = job["queued"]
    try:
        runs = client.get(job_path(job["job_id"], "next"), count=1)["waiting"]
    except ClientError as error:  # the history cannot be read: the number is known without it
        return [f"{job['job_id']}: {counted(queued, 'run')} waiting; the reasons are not available now: {error}"]
    more = queued - len(runs)
    lines = [format_waiting(run) for run in runs] + ([f"{counted(more, 'more run')} waiting"] if more > 0 else [])
    return [f"{job['job_id']}: {line}" for line in lines]
