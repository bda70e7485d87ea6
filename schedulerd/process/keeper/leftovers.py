"""Processes that a run leaves at its end, or that survive SIGKILL, in words for the operator."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress

from .procfs import Process, children_of_mine

MOST_NAMED = 5
_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def named(pid: int) -> str:
    """Return the name and id of a process."""
    name = "a process"
    with suppress(OSError), open(f"/proc/{pid}/comm", "rb") as file:
        name = file.read().decode("utf-8", "replace").strip()
    return f"{name} (process {pid})"


def killed_in_group(leader: int) -> dict[int, str]:
    """Return the processes in the group of a leader that was just reaped, after the group was killed.

    For most leaders the group is empty, which costs one system call. Zombies that had ended before are left out.
    """
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return {}
    except OSError:  # it runs as another user now
        pass
    return {pid: named(pid) for pid in children_of_mine() or () if _was_killed(pid, leader)}


def _was_killed(pid: int, group: int) -> bool:
    try:
        if os.getpgid(pid) != group:
            return False
        ended = os.waitid(os.P_PID, pid, _ENDED)
    except OSError:
        return False
    return ended is None or (ended.si_code, ended.si_status) == (os.CLD_KILLED, signal.SIGKILL)


def format_unkilled(refused: Iterable[Process], stuck: Iterable[Process]) -> str | None:
    """Return which processes the daemon may not kill, and which survive SIGKILL; None when there are none."""
    texts = {each.pid: f"{named(each.pid)} does not end after SIGKILL" for each in stuck}
    texts |= {each.pid: f"{named(each.pid)} runs as {_user(each.pid)}: the daemon may not kill it" for each in refused}
    words = [text for _, text in sorted(texts.items())]
    more = [f"{len(words) - MOST_NAMED} more"] if len(words) > MOST_NAMED else []
    return "; ".join(words[:MOST_NAMED] + more) or None


def _user(pid: int) -> str:
    try:
        return f"uid {os.stat(f'/proc/{pid}').st_uid}"
    except OSError:
        return "another user"
