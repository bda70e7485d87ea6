"""What a child process is to be and how it ended, also in the words of the keepers, who start and watch all children."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from ..core.errors import StartError

WHO = ("SCHEDULERD_JOB_ID", "SCHEDULERD_ATTEMPT", "SCHEDULERD_ORIGIN", "SCHEDULERD_SCHEDULED_AT")  # for `KnownRun`


class Cause(StrEnum):
    """Why we ended a child before it ended itself."""

    TIMEOUT = "timeout"
    CANCEL = "cancel"
    SHUTDOWN = "shutdown"
    REPLACE = "replace"  # a newer run of the job takes its place


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a child runs as; set only by root. `groups` are all of its supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use. `rlimits` are (soft, hard) by their name in the resource module, without RLIMIT_."""

    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    nice: int | None = None
    ionice: tuple[int, int] | None = None  # class and level, as in ioprio_set(2)
    of_run: Mapping[str, float] = field(default_factory=dict)  # of all its processes: `memory` bytes, `cpus`, `pids`


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A child to start: `argv[0]` is the path of its program, `env` all of its environment."""

    argv: list[str]
    env: Mapping[str, str]
    output_path: str
    cwd: str | None = None
    timeout_seconds: float | None = None
    kill_grace_seconds: float = 10.0
    input: bytes | None = None  # what it can read from its standard input; None is /dev/null
    output_limit_bytes: int | None = None  # head and tail of its output are kept; None is no limit
    identity: Identity | None = None
    limits: Limits | None = None
    umask: int | None = None
    keeps_leftovers: bool = False  # what it leaves behind goes on when it has ended


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run that a keeper knows: when it was started (None: that is not known), and the variables that say whose it is."""

    started_at: datetime | None
    who: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class End:
    """How a child ended: `exit_code` is negative for a signal, as in the subprocess module.

    `lost` says why its true end is not known (then the other figures are not, either).
    """

    run_id: str
    exit_code: int | None
    ended_at: datetime
    cause: Cause | None = None
    duration_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    lost: str | None = None
    oom_kills: int = 0  # by the kernel, because its run had used up its memory
    pids_refused: int = 0  # processes that it could not start, because its run had too many
    limits_not_kept: tuple[str, ...] = ()  # there is no control group that could
    is_output_erased: bool = False  # by itself, in between: what it wrote before is gone
    is_output_removed: bool = False  # by somebody, while it ran
    leftovers: tuple[str, ...] = ()  # processes that outlived their leader, and were killed
    unkilled: str | None = None  # processes that could not be killed, and why


class Listener(Protocol):
    """Who is told of children, from the supervisor's thread."""

    def started(self, run_id: str, at: datetime) -> None:
        """Hear that a child runs."""
        ...

    def refused(self, run_id: str, why: str) -> None:
        """Hear that a child could not be started, with the reason in words."""
        ...

    def ended(self, ends: list[End]) -> None:
        """Hear of the ends that came together."""
        ...

    def unkilled(self, run_id: str, who: str) -> None:
        """Hear that processes of a run live on although they were killed, with who and why in words."""
        ...


def line_of(order: Mapping[str, Any]) -> bytes:
    """Return an order as a keeper reads it."""
    return json.dumps(order, separators=(",", ":")).encode() + b"\n"


def start_order(run_id: str, spec: ProcessSpec) -> bytes:
    """Return the order to start a child. Raise StartError for what no process can be given."""
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
    """Return the moment that a keeper tells in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def known_run_of(told: Mapping[str, Any]) -> KnownRun:
    """Return a run as a keeper tells it; one of an earlier version does not say whose it is."""
    return KnownRun(moment_of(told["start"]["at"]) if told["start"] else None, told.get("who") or {})


def end_of(run_id: str, told: Mapping[str, Any]) -> End:
    """Return an end as a keeper tells it."""
    cause = told["cause"] if told["cause"] in set(Cause) else None  # a newer keeper may know others
    return End(
        run_id, told.get("code"), moment_of(told["at"]), Cause(cause) if cause else None, told.get("seconds"),
        told.get("cpu"), told.get("peak"), told.get("lost"), told.get("oom", 0), told.get("pids", 0),
        tuple(told.get("unkept", ())), bool(told.get("erased")), bool(told.get("removed")), tuple(told.get("leftovers", ())),
        told.get("unkilled"),
    )  # fmt: skip


def keep_descriptors_private() -> None:
    """Mark what this process was started with, but for 0 to 2, as not for children; its own files are so already."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that lists them is gone by now
            os.set_inheritable(int(name), int(name) <= 2)
