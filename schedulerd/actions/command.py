"""The actions `command` (a list of words, no shell) and `shell` (a line for /bin/sh)."""

from __future__ import annotations

import os
import pwd
import shutil
from functools import lru_cache

from ..errors import StartError
from ..model import Job, Run, to_text
from ..options import SAFE_PATH
from ..process import ProcessSpec
from ..secrets import resolve

SHELL = "/bin/sh"


def prepare_command(job: Job, run: Run, output_path: str) -> ProcessSpec:
    """Return the process of a `command` job. Raise StartError when its program is not to be found."""
    env = environment(job, run)
    program, *arguments = job.options["command"]
    return _spec(job, [find_program(program, env["PATH"], job.cwd), *arguments], env, output_path)


def prepare_shell(job: Job, run: Run, output_path: str) -> ProcessSpec:
    """Return the process of a `shell` job: /bin/sh -c with the line as it is written, nothing pasted into it."""
    return _spec(job, [SHELL, "-c", job.options["shell"]], environment(job, run), output_path)


def environment(job: Job, run: Run) -> dict[str, str]:
    """Return all that a child sees: a small base, who it is, and what its job sets. Nothing of the daemon's own.

    Raise SecretError when a variable's secret leads nowhere.
    """
    env = dict(_base())
    env["SCHEDULERD_JOB_ID"] = run.job_id
    env["SCHEDULERD_RUN_ID"] = run.run_id
    env["SCHEDULERD_ATTEMPT"] = str(run.attempt)
    env["SCHEDULERD_ORIGIN"] = run.origin
    if run.scheduled_at is not None:
        env["SCHEDULERD_SCHEDULED_AT"] = to_text(run.scheduled_at)
    for name, value in job.env.items():
        env[name] = resolve(value)
    return env


def find_program(program: str, path: str, cwd: str | None) -> str:
    """Return where the program is. Raise StartError when it is nowhere on the job's PATH."""
    if "/" in program:
        return os.path.join(cwd, program) if cwd else program
    found = shutil.which(program, path=path)
    if found is None:
        raise StartError(f"there is no program {program!r} on the job's PATH ({path})")
    return found


def _spec(job: Job, argv: list[str], env: dict[str, str], output_path: str) -> ProcessSpec:
    return ProcessSpec(
        argv=argv, env=env, output_path=output_path, cwd=job.cwd,
        timeout_seconds=job.timeout_seconds, kill_grace_seconds=job.kill_grace_seconds,
    )  # fmt: skip


@lru_cache(maxsize=1)
def _base() -> dict[str, str]:
    try:
        user = pwd.getpwuid(os.geteuid())
        name, home, shell = user.pw_name, user.pw_dir, user.pw_shell or SHELL
    except KeyError:
        name, home, shell = str(os.geteuid()), "/", SHELL
    return {"PATH": SAFE_PATH, "HOME": home, "USER": name, "LOGNAME": name, "SHELL": shell, "LANG": "C.UTF-8"}
