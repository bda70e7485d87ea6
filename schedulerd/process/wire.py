"""The protocol between daemon and keeper: JSON objects, one a line, over the Unix socket of the keeper's folder.

A keeper serves one daemon at a time. A daemon of any version must understand a keeper of an earlier one, and the other way
round: names of the protocol do not change.

| order               | meaning                                                                                       |
|---------------------|-----------------------------------------------------------------------------------------------|
| start: RUN, …       | start a child (`argv`, `env`, `output`, …); a run that the keeper knows is not started again   |
| end: RUN, cause     | carry out the kill ladder                                                                     |
| forget: [RUN, …]    | the daemon has recorded these ends                                                            |
| ping: true          | send a `pong`                                                                                 |
| settled: true       | no run of an earlier daemon is open: a run that is not in the journal was never started       |

| report              | meaning                                                                                       |
|---------------------|-----------------------------------------------------------------------------------------------|
| hello: VERSION, …   | the greeting of a new connection: running and ended runs (`runs`), that pings are answered     |
|                     | (`pongs`), why unknown runs may have been started (`doubt`), and which runs were forgotten     |
| started: RUN, at    | its child runs                                                                                |
| refused: RUN, why   | it could not be started; `unwritten`: because its intent could not be written to the journal   |
| ended: RUN, …       | how it ended; durable before it is sent                                                       |
| unkilled: RUN, who  | the processes of it that survive SIGKILL                                                      |
| trouble: TEXT       | for the daemon's log; with `run`, about that run                                              |
| shortage: TEXT      | what the keeper lacks from now on; null when it lacks nothing any more                        |
| pong: true          | the answer to a ping                                                                          |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..core.errors import StartError
from .spec import WHO, Cause, End, KnownRun, ProcessSpec


def line_of(order: Mapping[str, Any]) -> bytes:
    """Return an order as a line of the protocol."""
    return json.dumps(order, separators=(",", ":")).encode() + b"\n"


def start_order(run_id: str, spec: ProcessSpec) -> bytes:
    """Return the order to start a child. Raise StartError for a NUL character, which no process can receive."""
    if any("\0" in text for text in (*spec.argv, *spec.env, *spec.env.values())):
        raise StartError("a NUL character in an argument or variable")
    order: dict[str, Any] = {
        "start": run_id, "argv": spec.argv, "env": dict(spec.env), "output": spec.output_path, "cwd": spec.cwd,
        "timeout": spec.timeout_seconds, "grace": spec.kill_grace_seconds, "limit": spec.output_limit_bytes,
        "keep": spec.keeps_leftovers, "umask": spec.umask, "who": {name: spec.env[name] for name in WHO if name in spec.env},
    }  # fmt: skip
    if spec.input is not None:
        order["input"] = spec.input.decode("latin-1")
    if spec.identity is not None:
        order["identity"] = [spec.identity.uid, spec.identity.gid, list(spec.identity.groups)]
    if spec.limits is not None:
        own = {"rlimits": dict(spec.limits.rlimits), "nice": spec.limits.nice, "ionice": spec.limits.ionice}
        if any(own.values()):
            order["limits"] = own
        if spec.limits.of_run:
            order["group"] = dict(spec.limits.of_run)
    return line_of(order)


def moment_of(seconds: float) -> datetime:
    """Return an instant of the protocol, which is in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def known_run_of(entry: Mapping[str, Any]) -> KnownRun:
    """Return a run of a greeting. A keeper of an earlier version does not send `who`."""
    return KnownRun(moment_of(entry["start"]["at"]) if entry["start"] else None, entry.get("who") or {})


def end_of(run_id: str, report: Mapping[str, Any]) -> End:
    """Return an end that a keeper reports."""
    cause = report["cause"] if report["cause"] in set(Cause) else None  # a newer keeper may have further causes
    return End(
        run_id, report.get("code"), moment_of(report["at"]), Cause(cause) if cause else None, report.get("seconds"),
        report.get("cpu"), report.get("peak"), report.get("lost"), report.get("oom", 0), report.get("pids", 0),
        tuple(report.get("unkept", ())), bool(report.get("erased")), bool(report.get("removed")),
        tuple(report.get("leftovers", ())), report.get("unkilled"),
    )  # fmt: skip
