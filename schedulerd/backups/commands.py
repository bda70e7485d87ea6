"""Call the programs that do the work (pg_dump, tar, age, …), one or several in a row through pipes.

What they need to know that is secret goes into their environment, never into an argument. What they say on stderr goes to
ours, which is the run's output, and its end into the error when one of them fails (of what may quote the contents of a
database only what names objects, see `secrets/database_errors.py`): each of a row is asked for its status.
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

TOLD_BYTES = 64 * 1024  # of stderr that go into the output
MESSAGE_CHARACTERS = 600


@dataclass(frozen=True)
class Tool:
    """A program with its arguments, what is added to its environment, and which statuses are no failure.

    `words` returns what an error may repeat of what it said.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    accepted: Sequence[int] = (0,)
    words: Callable[[str], str] = lambda said: _last(" ".join(said.split()))

    @property
    def name(self) -> str:
        """Return what people call it."""
        return os.path.basename(self.argv[0])


def call(tool: Tool, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None) -> int:
    """Run a program to its end, and return its status. Raise BackupError with what it said when that is a failure."""
    return call_all([tool], stdin, stdout)[0]


def text_of(tool: Tool) -> str:
    """Return what a program writes, without white space around it. Raise BackupError."""
    with tempfile.TemporaryFile() as output:
        call(tool, stdout=output)
        output.seek(0)
        return output.read().decode("utf-8", "replace").strip()


def call_all(tools: Sequence[Tool], stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None) -> list[int]:
    """Run programs in a row, each reading what the one before writes. Raise BackupError when any of them fails."""
    with tempfile.TemporaryFile() as errors, ExitStack() as stack:
        processes: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, processes)
        source = stdin
        for number, tool in enumerate(tools, 1):
            target = subprocess.PIPE if number < len(tools) else stdout or subprocess.DEVNULL
            processes.append(_started(tool, source or subprocess.DEVNULL, target, errors))
            if number > 1 and source is not None:
                source.close()  # so that the one before hears when this one ends
            source = processes[-1].stdout
        statuses = [process.wait() for process in processes]
        said = _told(errors)
    failed = [(tool, status) for tool, status in zip(tools, statuses, strict=True) if status not in tool.accepted]
    if failed:
        raise BackupError(f"{ended(failed)}: {tools[0].words(said) if said else 'nothing was said'}")
    return statuses


def ended(failed: Sequence[tuple[Tool, int]]) -> str:
    """Return how programs of a row failed. What died because nobody read from it any more is not to blame. Pure."""
    guilty = [(tool, status) for tool, status in failed if status != -signal.SIGPIPE] or failed
    return ", ".join(f"{tool.name} {_how(status)}" for tool, status in guilty)


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
        raise BackupError(f"there is no program {tool.argv[0]!r} on this host: install it, or set the job's PATH") from None
    except OSError as error:
        raise BackupError(f"{tool.argv[0]} could not be started: {error.strerror}") from error


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Leave none running, whatever happened."""
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _told(errors: IO[bytes]) -> str:
    """Hand on what the programs said, and return the end of it."""
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - TOLD_BYTES))
    text = errors.read().decode("utf-8", "replace")
    tell(text)
    return mask_userinfo(text).strip()


def tell(text: str) -> None:
    """Write into the run's output what is in no error, because it may quote the contents of a database."""
    sys.stderr.write(mask_userinfo(text))


def _last(line: str) -> str:
    return line if len(line) <= MESSAGE_CHARACTERS else "…" + line[-MESSAGE_CHARACTERS:]
