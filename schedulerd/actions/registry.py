"""What a job does. An action of the first kind prepares a child process; one of the second is a function of ours.

`PREPARE` and the table of functions that the roof builds from `builtin/` are all that the executor knows of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial

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


def telling_of_success(
    prepare: Mapping[str, Prepare], last_success_at: Callable[[Run], datetime | None]
) -> Mapping[str, Prepare]:
    """Return `prepare` with processes that see up to when their job has done its work, when it has succeeded before."""
    return {action: partial(_told, one, last_success_at) for action, one in prepare.items()}


def _told(
    prepare: Prepare, last_success_at: Callable[[Run], datetime | None], job: Job, run: Run, output_path: str
) -> ProcessSpec:
    spec = prepare(job, run, output_path)
    at = last_success_at(run)
    return spec if at is None else replace(spec, env={**spec.env, LAST_SUCCESS_AT: to_text(at)})
