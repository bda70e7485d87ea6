"""The programs that runs of the actions `python`, `http`, `sql`, `backup` and `restore_drill` start as processes.

Each writes a result file, as any program can. All programs use the functions of this module, except `call.py`, the
program of the action `python`. It imports no module of schedulerd, because the interpreter of a job may run it.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from typing import Any, NoReturn


def order() -> dict[str, Any]:
    """Read the order, a JSON object, from standard input. Afterwards, standard input is /dev/null."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")  # independent of the job's locale
    given: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return given


def clean_up_on_sigterm() -> None:
    """Make SIGTERM raise SystemExit, so that partial files are removed. Set the umask so that new files are private."""
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
    """End the run as failed, with a message. `output`, if given, replaces the message in the output of the run."""
    clean = message.encode("utf-8", "replace").decode().replace("\0", "?")
    sys.stdout.flush()
    sys.stderr.write((clean if output is None else output) + "\n")
    sys.stderr.flush()
    report(message=clean, **result)
    os._exit(1)  # ends the process from any thread, even while the main thread waits for a server
