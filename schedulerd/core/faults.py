"""Fault points: places where a test stops, kills or delays this process, to see that nothing is lost or run twice there.

Inert unless the variable `SCHEDULERD_FAULT` is set, to `POINT:ACTION:PROBABILITY`, or several of them between commas. An
action is `stop` (SIGSTOP to itself), `kill` (SIGKILL), `error` (an exception) or `sleep:SECONDS`; for example
`after_fork:kill:0.2`.

| point           | where                                                              | process |
|-----------------|--------------------------------------------------------------------|---------|
| before_claim    | a decision was made, its rows are not handed to the store yet      | daemon  |
| in_claim        | in the transaction that enters rows, before its commit             | daemon  |
| after_claim     | the rows are durable, nothing of them was started                  | daemon  |
| before_start    | after the last check, before the order to start is given           | daemon  |
| after_fork      | the child runs, and its start is not recorded yet                  | keeper  |
| before_result   | the child has ended, and its end is not recorded yet               | keeper  |
| in_result       | in the transaction that writes ends, before its commit             | daemon  |
| in_reload       | new jobs were read and checked, and are not in place yet           | daemon  |
| backup_copied   | the source was copied, and the copy is not checked yet             | child   |
| backup_checked  | a backup was checked and hashed, and has no name yet               | child   |
| backup_named    | its manifest has its final name, and the backup itself not yet     | child   |
| backup_removed  | an old one was taken out of the catalogue, and is still there      | child   |

A child has a clean environment: for its points, the variable is set in the job's `env`.
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
    """Return action, seconds and probability by point. Raise ValueError with what is wrong."""
    found = {}
    for part in filter(None, text.split(",")):
        point, *action, probability = part.strip().split(":")
        if point not in POINTS:
            raise ValueError(f"{VARIABLE}: {point!r} is no fault point (there are {', '.join(POINTS)})")
        seconds = float(action[1]) if len(action) == 2 and action[0] == "sleep" else 0.0
        if action not in (["stop"], ["kill"], ["error"]) and not seconds:
            raise ValueError(f"{VARIABLE}: {':'.join(action)!r} is no action (stop, kill, error or sleep:SECONDS)")
        found[point] = action[0], seconds, float(probability)
    return found


_FAULTS = parse(os.environ.get(VARIABLE, ""))


def fault_point(name: str) -> None:
    """Do here what SCHEDULERD_FAULT says, if it says anything."""
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
