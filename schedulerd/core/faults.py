"""Fault points: places where a test stops, kills or delays this process, to verify that no run is lost or started twice.

Inactive unless the variable `SCHEDULERD_FAULT` is set to `POINT:ACTION:PROBABILITY`, or to several of these separated by
commas. An action is `stop` (SIGSTOP to itself), `kill` (SIGKILL), `error` (an exception) or `sleep:SECONDS`. Example:
`after_fork:kill:0.2`.

| point           | place                                                              | process |
|-----------------|--------------------------------------------------------------------|---------|
| before_claim    | a decision is made, its rows are not passed to the store yet       | daemon  |
| in_claim        | in the transaction that inserts rows, before its commit            | daemon  |
| after_claim     | the rows are durable, none of the runs is started yet              | daemon  |
| before_start    | after the last check, before the order to start                    | daemon  |
| after_fork      | the child runs, its start is not recorded yet                      | keeper  |
| before_result   | the child has ended, its end is not recorded yet                   | keeper  |
| in_result       | in the transaction that writes ends, before its commit             | daemon  |
| in_reload       | the new jobs are read and checked, and not active yet              | daemon  |
| backup_copied   | the source is copied, the copy is not checked yet                  | child   |
| backup_checked  | the backup is checked and hashed, and has no final name yet        | child   |
| backup_named    | the manifest has its final name, the backup has not                | child   |
| backup_removed  | an old backup has left the catalogue, its file still exists        | child   |

A child has a clean environment. For its points, set the variable in the job's `env`.
"""

from __future__ import annotations

import os
import signal
import threading

VARIABLE = "SCHEDULERD_FAULT"
POINTS = (
    "before_claim", "in_claim", "after_claim", "before_start", "after_fork", "before_result", "in_result", "in_reload",
    "backup_copied", "backup_checked", "backup_named", "backup_removed",
)  # fmt: skip


def parse(text: str) -> dict[str, tuple[str, float, float]]:
    """Return action, seconds and probability by point. Raise ValueError, which names the mistake."""
    found = {}
    for part in filter(None, text.split(",")):
        point, *action, probability = part.strip().split(":")
        if point not in POINTS:
            raise ValueError(f"{VARIABLE}: {point!r} is not a fault point (known points: {', '.join(POINTS)})")
        seconds = float(action[1]) if len(action) == 2 and action[0] == "sleep" else 0.0
        if action not in (["stop"], ["kill"], ["error"]) and not seconds:
            raise ValueError(f"{VARIABLE}: {':'.join(action)!r} is not an action (stop, kill, error or sleep:SECONDS)")
        found[point] = action[0], seconds, float(probability)
    return found


_FAULTS = parse(os.environ.get(VARIABLE, ""))


def fault_point(name: str) -> None:
    """Perform the action that SCHEDULERD_FAULT configures for this point, if any."""
    if not _FAULTS or name not in _FAULTS:
        return
    action, seconds, probability = _FAULTS[name]
    if int.from_bytes(os.urandom(4), "big") >= probability * 2**32:
        return
    if action == "sleep":
        threading.Event().wait(seconds)
    elif action == "error":
        raise RuntimeError(f"fault point {name}")
    else:
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
