"""What a child process is to be, and how it ended."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

WHO = ("SCHEDULERD_JOB_ID", "SCHEDULERD_ATTEMPT", "SCHEDULERD_ORIGIN", "SCHEDULERD_SCHEDULED_AT")  # see `KnownRun`


class Cause(StrEnum):
    """Why schedulerd ended a child."""

    TIMEOUT = "timeout"
    CANCEL = "cancel"
    SHUTDOWN = "shutdown"
    REPLACE = "replace"  # a newer run of the job takes its place


@dataclass(frozen=True, slots=True)
class Identity:
    """The user of a child; only root can set it. `groups` are all of its supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a child. `rlimits` are (soft, hard) by their names in the resource module, without RLIMIT_."""

    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    nice: int | None = None
    ionice: tuple[int, int] | None = None  # class and level, as in ioprio_set(2)
    of_run: Mapping[str, float] = field(
        default_factory=dict
    )  # for all of its processes together: `memory` in bytes, `cpus`, `pids`


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A child to start. `argv[0]` is the path of its program, `env` its whole environment."""

    argv: list[str]
    env: Mapping[str, str]
    output_path: str
    cwd: str | None = None
    timeout_seconds: float | None = None
    kill_grace_seconds: float = 10.0
    input: bytes | None = None  # its standard input; None: /dev/null
    output_limit_bytes: int | None = None  # more is cut in the middle; None: no limit
    identity: Identity | None = None
    limits: Limits | None = None
    umask: int | None = None
    keeps_leftovers: bool = False  # do not kill its leftovers when it has ended by itself


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run that a keeper knows: its start (None: unknown), and the variables that identify its job and occurrence (WHO)."""

    started_at: datetime | None
    who: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class End:
    """How a child ended: `exit_code` is negative for a signal, as in the subprocess module.

    `lost` is the reason why its exit status is unknown; the other figures are unknown then, too.
    """

    run_id: str
    exit_code: int | None
    ended_at: datetime
    cause: Cause | None = None
    duration_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    lost: str | None = None
    oom_kills: int = 0  # by the kernel, at the memory limit of the run
    pids_refused: int = 0  # processes that were not started because of the limit of the run
    limits_not_kept: tuple[str, ...] = ()  # for which there was no cgroup controller
    is_output_erased: bool = False  # by itself, while it ran: earlier output is lost
    is_output_removed: bool = False  # while it ran
    leftovers: tuple[str, ...] = ()  # processes that outlived the leader and were killed
    unkilled: str | None = None  # processes that survived SIGKILL, and why


class RunObserver(Protocol):
    """Receives what happens to children, in the supervisor's thread."""

    def on_child_started(self, run_id: str, at: datetime) -> None:
        """Note that a child was started."""
        ...

    def on_child_refused(self, run_id: str, why: str) -> None:
        """Note that a child could not be started, and why."""
        ...

    def on_children_ended(self, ends: list[End]) -> None:
        """Note the ends that were reported together."""
        ...

    def on_child_unkilled(self, run_id: str, who: str) -> None:
        """Note which processes of a run survive SIGKILL, and why."""
        ...


def keep_descriptors_private() -> None:
    """Set close-on-exec on the inherited descriptors above 2. Files that Python opens have it already."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor of the listing is closed already
            os.set_inheritable(int(name), int(name) <= 2)
