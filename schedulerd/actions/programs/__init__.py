"""The programs that runs of the actions `python`, `http`, `sql`, `backup` and `restore_drill` start as processes.

They report to the result file, as any program may. The functions here are for all but `call.py`, the program of `python`,
which imports nothing of schedulerd because the interpreter of a job may run it.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from typing import Any, NoReturn


def order() -> dict[str, Any]:
    """Return what is to be done: JSON from the standard input, which is /dev/null from then on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")  # whatever language the job is set to
    given: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return given


def clean_up_on_sigterm() -> None:
    """Let SIGTERM unwind the program, so that nothing half-made is left behind; and make private whatever is made."""
    os.umask(0o077)
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, _frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # once is enough: what unwinds now is not to be disturbed
    sys.exit(128 + number)


def report(**result: Any) -> None:
    """Say something about the run."""
    path = os.environ.get("SCHEDULERD_RESULT_FILE")
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(result, file)


def fail(message: str, told: str | None = None, **result: Any) -> NoReturn:
    """End the run as failed, with the reason in words; `told` goes into its output instead, where it may be of all kinds."""
    clean = message.encode("utf-8", "replace").decode().replace("\0", "?")
    sys.stdout.flush()
    sys.stderr.write((clean if told is None else told) + "\n")
    sys.stderr.flush()
    report(message=clean, **result)
    os._exit(1)  # also from a second thread, while the first still waits for somebody else's answer
