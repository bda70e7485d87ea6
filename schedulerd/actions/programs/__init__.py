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
    """Return the order, JSON from standard input, which is /dev/null afterwards."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")  # in whatever locale the job runs
    given: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return given


def clean_up_on_sigterm() -> None:
    """Exit on SIGTERM by an exception, so that partial files are removed. Make new files private."""
    os.umask(0o077)
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, _frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
    sys.exit(128 + number)


def report(**result: Any) -> None:
    """Write the result file of the run."""
    path = os.environ.get("SCHEDULERD_RESULT_FILE")
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(result, file)


def fail(message: str, output: str | None = None, **result: Any) -> NoReturn:
    """End the run as failed with a message. `output` is written to the output of the run instead of the message."""
    clean = message.encode("utf-8", "replace").decode().replace("\0", "?")
    sys.stdout.flush()
    sys.stderr.write((clean if output is None else output) + "\n")
    sys.stderr.flush()
    report(message=clean, **result)
    os._exit(1)  # also from a second thread, while the first waits for a server
