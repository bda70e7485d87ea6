"""Runs the programs that do the work (pg_dump, tar, age, …), alone or in a pipeline.

Secrets are passed in the environment, never in an argument. The standard error of the programs goes to the output of the
run, and its end into the error message when a program fails. Of messages that may quote the contents of a database, only
the names of objects are repeated (see `secrets/database_errors.py`). The status of each program of a pipeline is checked.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO

from ..secrets.urls import mask_userinfo
from .source import BackupError

STDERR_BYTES = 64 * 1024  # of standard error, copied to the output
MESSAGE_CHARACTERS = 600


@dataclass(frozen=True)
class Tool:
    """A program with its arguments, additions to its environment, and the exit statuses that are not a failure.

    `words` returns the part of its standard error that an error message may repeat.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    accepted: Sequence[int] = (0,)
    words: Callable[[str], str] = lambda said: _last(" ".join(said.split()))

    @property
    def name(self) -> str:
        """Return the name of the program without its folder."""
        return os.path.basename(self.argv[0])


def call(tool: Tool, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None) -> int:
    """Run a program and return its exit status. Raise BackupError with its error message when it fails."""
    return call_all([tool], stdin, stdout)[0]


def text_of(tool: Tool) -> str:
    """Return the standard output of a program, without surrounding white space. Raise BackupError."""
    with tempfile.TemporaryFile() as output:
        call(tool, stdout=output)
        output.seek(0)
        return output.read().decode("utf-8", "replace").strip()


def call_all(tools: Sequence[Tool], stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None) -> list[int]:
    """Run a pipeline of programs and return their exit statuses. Raise BackupError when any of them fails."""
    with tempfile.TemporaryFile() as errors, ExitStack() as stack:
        processes: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, processes)
        source = stdin
        for number, tool in enumerate(tools, 1):
            target = subprocess.PIPE if number < len(tools) else stdout or subprocess.DEVNULL
            processes.append(_started(tool, source or subprocess.DEVNULL, target, errors))
            if number > 1 and source is not None:
                source.close()  # so that the program before receives SIGPIPE when this one ends
            source = processes[-1].stdout
        statuses = [process.wait() for process in processes]
        said = _copy_errors(errors)
    failed = [(tool, status) for tool, status in zip(tools, statuses, strict=True) if status not in tool.accepted]
    if failed:
        raise BackupError(f"{ended(failed)}: {tools[0].words(said) if said else 'no error message'}")
    return statuses


def ended(failed: Sequence[tuple[Tool, int]]) -> str:
    """Return how programs of a pipeline failed, without those that SIGPIPE killed because another one failed. Pure."""
    causes = [(tool, status) for tool, status in failed if status != -signal.SIGPIPE] or failed
    return ", ".join(f"{tool.name} {_how(status)}" for tool, status in causes)


def _how(status: int) -> str:
    if status >= 0:
        return f"failed with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # the real-time signals have no names
        return f"was killed by signal {-status}"


def _started(tool: Tool, stdin: IO[bytes] | int, stdout: IO[bytes] | int, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - a fixed program, its arguments as a list
            list(tool.argv), stdin=stdin, stdout=stdout, stderr=stderr, env={**os.environ, **tool.env}
        )
    except FileNotFoundError:
        raise BackupError(
            f"program {tool.argv[0]!r} does not exist on this host: install it, or set PATH in `env` of the job"
        ) from None
    except OSError as error:
        raise BackupError(f"cannot start {tool.argv[0]}: {error.strerror}") from error


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End all programs that are still running."""
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _copy_errors(errors: IO[bytes]) -> str:
    """Copy the end of the standard error of the programs to the output, and return it with URLs masked."""
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - STDERR_BYTES))
    text = errors.read().decode("utf-8", "replace")
    write_output(text)
    return mask_userinfo(text).strip()


def write_output(text: str) -> None:
    """Write a text to the output of the run. It may quote the contents of a database, so no error message contains it."""
    sys.stderr.write(mask_userinfo(text))


def _last(line: str) -> str:
    return line if len(line) <= MESSAGE_CHARACTERS else "…" + line[-MESSAGE_CHARACTERS:]
