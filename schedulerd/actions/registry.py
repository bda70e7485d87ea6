"""What a job does. An action of the first kind prepares a child process; one of the second is a function of ours.

`PREPARE` and the table of functions that the roof builds from `builtin/` are all that the executor knows of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from ..core.models import Job, Run, to_text
from ..process.spec import ProcessSpec
from .backup import prepare_backup, prepare_restore_drill
from .command import prepare_command, prepare_shell
from .environment import LAST_SUCCESS_AT
from .helpers import prepare_http, prepare_python, prepare_sql

Prepare = Callable[[Job, Run, str], ProcessSpec]  # (job, run, output path) → what to start

PREPARE: Mapping[str, Prepare] = {
    "command": prepare_command, "shell": prepare_shell, "python": prepare_python, "http": prepare_http, "sql": prepare_sql,
    "backup": prepare_backup, "restore_drill": prepare_restore_drill,
}  # fmt: skip


def prepare(job: Job, run: Run, output_path: str, last_success_at: datetime | None) -> ProcessSpec:
    """Return the process of a run; it gets the time up to which its job has done its work, when that is known."""
    spec = PREPARE[job.action](job, run, output_path)
    return spec if last_success_at is None else replace(spec, env={**spec.env, LAST_SUCCESS_AT: to_text(last_success_at)})
