"""A run as the keeper watches it, and its end as the journal and the daemon receive it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

MOST_LEFTOVERS = 20  # names that an end reports
UNKNOWN_STATUS = 255 << 8


class Child:
    """A run with its leader: a child of this keeper, or (`is_adopted`) a process that a killed keeper has left."""

    __slots__ = (
        "began", "cause", "grace", "has_ended", "is_adopted", "is_shot", "keeps_leftovers", "kill_at", "leftovers", "pid",
        "pidfd", "run_id", "started", "status", "unkilled", "usage",
    )  # fmt: skip

    def __init__(self, run_id: str, pid: int, started: float, grace: float, keeps_leftovers: bool) -> None:
        """`started` is monotonic, `grace` the seconds between SIGTERM and SIGKILL."""
        self.run_id, self.pid, self.started, self.grace = run_id, pid, started, grace
        self.keeps_leftovers = keeps_leftovers
        self.began = 0  # clock ticks since boot, see `Process.began`
        self.is_adopted = False
        self.pidfd = -1  # of an adopted one, when a descriptor was to be had
        self.cause: str | None = None
        self.kill_at: float | None = None  # monotonic: when SIGKILL is due, once the run is being ended
        self.has_ended = False  # the leader; other processes of the run may still be running
        self.status = UNKNOWN_STATUS
        self.usage: Any = None
        self.leftovers: dict[int, str] = {}  # by process id: processes that outlived the leader and were killed
        self.is_shot = False  # SIGKILL was sent to its processes
        self.unkilled: str | None = None  # the processes that survived SIGKILL, and why


def end_values(child: Child, seconds: float, at: float) -> dict[str, Any]:
    """Return the end of a child in the words of the protocol. `seconds` is its duration, `at` seconds since 1970."""
    values: dict[str, Any] = {"cause": child.cause, "seconds": seconds, "at": at}
    if child.leftovers:
        values["leftovers"] = list(child.leftovers.values())[:MOST_LEFTOVERS]
    if child.unkilled is not None:
        values["unkilled"] = child.unkilled
    if child.is_adopted:
        values["lost"] = (
            "its keeper was killed (or the machine ran out of memory): it kept running, but its exit status was lost"
        )
        return values
    values["code"] = os.waitstatus_to_exitcode(child.status)
    if child.usage is not None:
        values["cpu"] = child.usage.ru_utime + child.usage.ru_stime
        values["peak"] = child.usage.ru_maxrss * 1024
    return values


def lost_values(known: Mapping[str, Any], is_same_boot: bool, at: float) -> dict[str, Any]:
    """Return the end of a run of an earlier keeper of which no process is left. `known` is its journal entry."""
    if not is_same_boot:
        why = "the host was restarted while it ran"
    elif "start" in known:
        why = "its keeper was killed, and its exit status was lost"
    else:
        why = "its keeper was killed while it was started, and no process of it was found"
    return {"cause": None, "seconds": None, "at": at, "lost": why}
