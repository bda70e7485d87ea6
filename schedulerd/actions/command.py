"""The actions `command` (a program and its arguments, no shell) and `shell` (a line for /bin/sh)."""

from __future__ import annotations

import os
import shutil

from ..core.errors import StartError
from ..core.models import Job, ParamWord, Run
from ..core.params import as_text
from ..process.spec import ProcessSpec
from .environment import SHELL, environment, spec_of, values_of


def prepare_command(job: Job, run: Run, output_path: str) -> ProcessSpec:
    """Return the process spec of a `command` job. Raise StartError when its program is not found."""
    env = environment(job, run, output_path)
    values = values_of(job, run)
    program, *arguments = (
        as_text(values[word.name]) if isinstance(word, ParamWord) else word for word in job.options["command"]
    )
    return spec_of(job, [find_program(program, env["PATH"], job.cwd), *arguments], env, output_path)


def prepare_shell(job: Job, run: Run, output_path: str) -> ProcessSpec:
    """Return the process spec of a `shell` job: /bin/sh -c with the line as written; nothing is substituted."""
    env = environment(job, run, output_path)
    return spec_of(job, [SHELL, "-c", job.options["shell"]], env, output_path)


def find_program(program: str, path: str, cwd: str | None) -> str:
    """Return the path of a program. Raise StartError when it is not on the job's PATH."""
    if "/" in program:
        return os.path.join(cwd, program) if cwd else program
    found = shutil.which(program, path=path)
    if found is None:
        raise StartError(f"program {program!r} not found on the job's PATH ({path})")
    return found
