"""The commands of `schedulerctl` about runs: start one, follow it, see what it wrote, end it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from ..core.clock import SystemClock
from ..core.retries import is_followed
from ..core.units import counted, format_duration, parse_duration
from .client import PREFIX, Client, ClientError, is_run_id, job_path, run_path
from .follow import PASSING, Watch, awaited, watched
from .output import REFUSED, Options, done, moment, percent, printable_lines, remark, seconds, show, waiting_text
from .terminal import Controls

NOT_ENDED, TIMED_OUT, DETACHED = 75, 124, 130  # exit statuses; 75 is EX_TEMPFAIL of sysexits.h
AWAY = 503  # HTTP status
OF_SIGNALS = 128  # ... and the signal's number
WITH_OUTPUT = "queued,running,success,failed,timed_out,cancelled,abandoned"  # statuses
LARGEST_READ = 10 * 1024 * 1024  # bytes in one answer
LINE_BYTES = 200  # about so long is a line

Add = Callable[..., argparse.ArgumentParser]


def add_commands(add: Add) -> None:
    """Add the commands to the parser."""
    run = add("run", _run, "run a job now, wait for its end, and exit with its code", takes_job=True)
    run.add_argument("-p", "--param", action="append", type=_param, default=[], metavar="NAME=VALUE", help="a parameter")
    how = run.add_mutually_exclusive_group()
    how.add_argument("-f", "--follow", action="store_true", help="show its output as it comes")
    how.add_argument("--no-wait", action="store_true", help="do not wait")
    how.add_argument(
        "--wait", type=_duration, metavar="DURATION", help=f"wait no longer, such as 30s; then exit with {NOT_ENDED}"
    )
    _add_controls(run)
    logs = add("logs", _logs, "what a run has written, or the newest run of a job")
    logs.add_argument("run", metavar="RUN_ID|JOB")
    logs.add_argument("-f", "--follow", action="store_true", help="and what comes, until it ends")
    logs.add_argument("-n", "--lines", type=_lines, metavar="N", help="only the last N lines")
    _add_controls(logs)
    cancel = add("cancel", _cancel, "end a run, or the newest run of a job")
    cancel.add_argument("run", metavar="RUN_ID|JOB")
    cancel.add_argument("--wait", action="store_true", help="wait until it has ended")
    cancel.add_argument("--reason", help="why")
    add("running", _running, "what runs now, and what waits for its turn")


def _add_controls(command: argparse.ArgumentParser) -> None:
    """Add the options that say what becomes of control characters in output, on a terminal."""
    how = command.add_mutually_exclusive_group()
    how.add_argument(
        "--color", dest="controls", action="store_const", const=Controls.COLOUR, default=Controls.SHOW,
        help="keep the colours of the output on a terminal; other control characters are shown, such as ^[",
    )  # fmt: skip
    how.add_argument(
        "--raw", dest="controls", action="store_const", const=Controls.RAW, default=Controls.SHOW,
        help="hand the output to a terminal as it is, with all that may steer it",
    )  # fmt: skip


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


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _run(client: Client, options: Options) -> int:
    body = {"params": dict(options.param)} if options.param else None
    answer = client.post(job_path(options.job, "trigger"), body, wait="false").body
    if options.no_wait or answer["status"] in ("skipped", "missed"):
        told = f"{options.job}: {answer['message']}" + (f", as run {answer['run_id']}" if answer["success"] else "")
        print(json.dumps(answer, indent=2) if options.json else printable_lines(told))
        return 0 if answer["success"] else exit_code(answer["result"])
    try:
        run = _last_attempt(client, options, answer["run_id"])
    except KeyboardInterrupt:
        return DETACHED
    if run is None:
        if options.json:
            print(json.dumps(answer, indent=2))
        return NOT_ENDED
    if options.follow:
        print(json.dumps(run, indent=2) if options.json else _first_line(_ended(run)), file=sys.stderr)
    else:
        print(json.dumps(_answer(run), indent=2) if options.json else _ended(run))
    return exit_code(run)


def _last_attempt(client: Client, options: Options, run_id: str) -> dict[str, Any] | None:
    """Wait for the end of a run, and of the attempts that follow it; return the last, None when it takes too long.

    Whoever stops looking, for whatever reason, is told how to look again.
    """
    until = None if options.wait is None else SystemClock().monotonic() + options.wait
    try:
        while (
            run := watched(client, run_id, options.controls) if options.follow else awaited(client, run_id, until)
        ) is not None:
            if not is_followed(run["details"]):
                return run
            run_id, at = run["details"]["retry"], run["details"]["retry_at"]
            print(f"{_first_line(_ended(run))}; tried again at {at}, as run {run_id}", file=sys.stderr, flush=True)
        _tell_how(run_id, f"not ended within {format_duration(options.wait)}, the run goes on")
        return None
    except KeyboardInterrupt:
        print(file=sys.stderr)
        _tell_how(run_id, "detached, the run goes on")
        raise
    except ClientError as error:
        if error.status in PASSING:
            _tell_how(run_id, "the daemon stays away, the run may go on")
        raise


def _tell_how(run_id: str, why: str) -> None:
    print(
        f"schedulerctl: {why}. To see it again: schedulerctl logs -f {run_id}"
        f"\n              to end it: schedulerctl cancel {run_id}",
        file=sys.stderr,
    )


def _answer(run: dict[str, Any]) -> dict[str, Any]:
    """Return a run that has ended in the shape of the answer to a trigger."""
    return {
        "success": run["status"] == "success",
        "job_id": run["job_id"],
        "status": run["status"],
        "message": _ended(run).removeprefix(f"{run['job_id']}: "),
        "result": run,
        "run_id": run["run_id"],
    }


def _ended(run: dict[str, Any]) -> str:
    """Return how a run ended, in words."""
    status = "succeeded" if run["status"] == "success" else run["status"].replace("_", " ")
    took = f" after {format_duration(run['duration_seconds'])}" if run["duration_seconds"] is not None else ""
    said = run["error_message"] or run["details"].get("message")
    return printable_lines(f"{run['job_id']}: {status}{took}" + (f": {said}" if said else ""))


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _logs(client: Client, options: Options) -> int:
    run_id = _found(client, options.run)
    watch = Watch(client, run_id, options.controls)
    try:
        _show(client, watch, options)
    finally:
        watch.line.end()
    return 0


def _show(client: Client, watch: Watch, options: Options) -> None:
    if options.lines is not None:
        _show_last(client, watch, options.lines)
    elif not options.follow:
        _show_all(client, watch)
    if options.follow:
        watch.follow()


def _found(client: Client, what: str) -> str:
    """Return a run's id as it is, and for a job that of its newest run."""
    if is_run_id(what):
        return what
    try:
        runs = client.get(job_path(what, "history"), limit=1, status=WITH_OUTPUT)
    except ClientError as error:  # the history is away: what runs is known without it
        runs = [run for run in client.get("running") if run["job_id"] == what][-1:] if error.status == AWAY else []
        if not runs:
            raise
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


def _show_last(client: Client, watch: Watch, count: int) -> None:
    """Show the last `count` lines, and what was dropped between them; the watch goes on behind them."""
    pieces = _last_pieces(client, watch, count)
    text = b"".join(data for _, data in pieces)
    lines = text.splitlines(keepends=True)
    skipped = len(text) - sum(map(len, lines[len(lines) - min(count, len(lines)) :]))
    place = 0
    for dropped, data in pieces:
        if place > skipped:
            watch.tell_dropped(dropped)
        watch.show(data[max(0, skipped - place) :])
        place += len(data)


def _last_pieces(client: Client, watch: Watch, count: int) -> list[tuple[int, bytes]]:
    """Return the end of an output with more than `count` lines, or all of it, as `Watch.fetch` does piece by piece."""
    size = client.get(run_path(watch.run_id))["output_bytes"]
    most = max(1, count * LINE_BYTES)
    while True:
        pieces: list[tuple[int, bytes]] = []
        watch.offset = start = max(0, size - most)
        while watch.offset < size and (piece := watch.fetch(min(LARGEST_READ, size - watch.offset)))[1]:
            pieces.append(piece)
        if start == 0 or len(b"".join(data for _, data in pieces).splitlines()) > count:
            return pieces
        most *= 4


def _cancel(client: Client, options: Options) -> int:
    run_id = _found(client, options.run)
    body = {"reason": options.reason} if options.reason else None
    answer = client.post(run_path(run_id, "cancel"), body, wait="true" if options.wait else None)
    done(options, answer, run_id)
    return 0 if answer.body["success"] else REFUSED


def _running(client: Client, options: Options) -> int:
    runs = client.get("running")
    rows = [
        (run["job_id"], run["run_id"], run["origin"], moment(run["started_at"]), format_duration(run["running_seconds"]),
         percent(run["progress"]), seconds(run["eta_seconds"]))
        for run in runs
    ]  # fmt: skip
    show(options, runs, ("JOB", "RUN", "ORIGIN", "STARTED", "SINCE", "PROGRESS", "ETA"), rows)
    queues = [] if options.json else [job for job in client.get("jobs") if job["queued"]]
    return remark(options, [line for job in queues for line in _waiting(client, job)])


def _waiting(client: Client, job: dict[str, Any]) -> list[str]:
    """Return a line for each run of a job that waits for its turn, with the reason."""
    try:
        found = client.get(job_path(job["job_id"], "next"), count=1)["waiting"]
    except ClientError as error:  # the history is away: how many wait is known without it
        return [f"{job['job_id']}: {counted(job['queued'], 'run')} waiting; what for cannot be told now: {error}"]
    more = job["queued"] - len(found)
    told = [waiting_text(each) for each in found] + ([f"{more} more of it waiting"] if more > 0 else [])
    return [f"{job['job_id']}: {line}" for line in told]
