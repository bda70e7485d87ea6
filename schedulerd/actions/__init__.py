"""What a job does. An action of the first kind prepares a child process; one of the second is a function of ours.

`PREPARE` and the table of functions that the roof builds from `builtin/` are all that the executor knows of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..model import Job, Run
from ..process import ProcessSpec
from .backups import prepare_backup, prepare_restore_drill
from .command import prepare_command, prepare_shell
from .programs import prepare_http, prepare_python, prepare_sql

Prepare = Callable[[Job, Run, str], ProcessSpec]  # (job, run, output path) → what to start

PREPARE: Mapping[str, Prepare] = {
    "command": prepare_command, "shell": prepare_shell, "python": prepare_python, "http": prepare_http, "sql": prepare_sql,
    "backup": prepare_backup, "restore_drill": prepare_restore_drill,
}  # fmt: skip
