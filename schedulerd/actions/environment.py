"""What all child processes have in common: their environment, whom they run as, and what they may use."""

from __future__ import annotations

import os
import pwd
from functools import lru_cache
from typing import Any

from ..config.settings_jobs import OWN_PREFIX, SAFE_PATH
from ..core.clock import SystemClock
from ..core.errors import InvalidError, StartError
from ..core.faults import VARIABLE as FAULT
from ..core.models import Job, Run, to_text
from ..core.params import as_text, check_params
from ..host.accounts import expired_on, group_of, user_of
from ..host.cgroups import CONTROLLER_OF
from ..process.result_file import make_result_file, result_path
from ..process.spec import Identity, Limits, ProcessSpec
from ..secrets.env_files import variables_for
from ..secrets.references import resolve

SHELL = "/bin/sh"
LAST_SUCCESS_AT = f"{OWN_PREFIX}LAST_SUCCESS_AT"  # which a job may set, for the time before its first success
MAY_BE_SET = (LAST_SUCCESS_AT, FAULT)
RLIMITS = {
    "open_files": "NOFILE", "file_size": "FSIZE", "address_space": "AS", "cpu_time": "CPU", "processes": "NPROC",
    "core": "CORE", "stack": "STACK",
}  # fmt: skip
CPU_GRACE_SECONDS = 5  # from SIGXCPU at the soft limit to SIGKILL at the hard one


def spec_of(
    job: Job,
    argv: list[str],
    env: dict[str, str],
    output_path: str,
    input: bytes | None = None,  # noqa: A002 - the name of the field of ProcessSpec
) -> ProcessSpec:
    """Return the process of a run, as its job's settings have it. Raise StartError when whom it runs as is not there."""
    identity = identity_of(job)
    if job.user is not None and identity is not None:
        try:
            make_result_file(result_path(output_path, job), identity.uid)
        except OSError as error:
            raise StartError(f"the file for its result could not be made: {error.strerror}") from error
    return ProcessSpec(
        argv=argv, env=env, output_path=output_path, cwd=job.cwd, timeout_seconds=job.timeout_seconds,
        kill_grace_seconds=job.kill_grace_seconds, input=input, output_limit_bytes=job.output_limit_bytes,
        identity=identity, limits=limits_of(job), umask=job.umask, keeps_leftovers=job.keeps_leftovers,
    )  # fmt: skip


def environment(job: Job, run: Run, output_path: str) -> dict[str, str]:
    """Return all that a child sees: a small base, what its job sets, and who it is. Nothing of the daemon's own.

    Who it is cannot be set by its job: a run's processes are known by it, wherever they have gone.

    Raise SecretError when a variable's secret leads nowhere, StartError for a file of variables that cannot be used, for an
    unknown user, and for a parameter that the job does not take any more.
    """
    own = users_of(job)
    env = dict(_base(job.user if job.user is not None else os.geteuid()))
    for path in job.env_files:
        env.update(variables_for(path, own, job.allowed_env))
    for name, value in job.env.items():
        env[name] = resolve(value, own)
    env = {name: value for name, value in env.items() if not name.startswith(OWN_PREFIX) or name in MAY_BE_SET}
    env["SCHEDULERD_JOB_ID"] = run.job_id
    env["SCHEDULERD_RUN_ID"] = run.run_id
    env["SCHEDULERD_FENCING_TOKEN"] = str(run.fencing_token)
    env["SCHEDULERD_ATTEMPT"] = str(run.attempt)
    env["SCHEDULERD_ORIGIN"] = run.origin
    if run.scheduled_at is not None:
        env["SCHEDULERD_SCHEDULED_AT"] = to_text(run.scheduled_at)
    if run.details.get("after"):  # the runs that it follows, and their jobs, in the same order
        env["SCHEDULERD_AFTER_JOBS"] = " ".join(run.details["after"])
        env["SCHEDULERD_AFTER_RUNS"] = " ".join(run.details["after"].values())
    for name, each in values_of(job, run).items():
        env[f"SCHEDULERD_PARAM_{name.upper()}"] = as_text(each)
    env["SCHEDULERD_RESULT_FILE"] = result_path(output_path, job)
    return env


def values_of(job: Job, run: Run) -> dict[str, Any]:
    """Return the values of a run's parameters: those that were given when it was asked for, and defaults.

    They are checked against what the job declares now. Raise StartError.
    """
    try:
        return check_params(job.params, dict(run.details.get("params", {})))
    except InvalidError as error:
        raise StartError(f"params.{error.detail['loc'][-1]}: {error}") from error


def identity_of(job: Job) -> Identity | None:
    """Return whom a job's process runs as, None for the daemon's own user. Raise StartError when that cannot be."""
    if job.user is None and job.group is None:
        return None
    if os.geteuid() != 0:
        raise StartError("only a daemon that is root can start processes of another user or group")
    user = _user(job.user) if job.user is not None else pwd.getpwuid(0)
    if user.pw_uid == 0 and job.user not in (None, "root"):
        raise StartError(f"the user {job.user!r} is root: it must be spelt so, if that is meant")
    if user.pw_uid != 0:
        _check_expiry(user)
    gid = user.pw_gid
    if job.group is not None:
        try:
            gid = group_of(job.group).gr_gid
        except KeyError:
            raise StartError(f"there is no group {job.group!r} on this host") from None
    return Identity(user.pw_uid, gid, tuple(os.getgrouplist(user.pw_name, gid)))


def _check_expiry(user: pwd.struct_passwd) -> None:
    """Raise StartError for an account that has ended: cron and sshd start nothing for it, either."""
    try:
        end = expired_on(user, SystemClock().now())
    except OSError as error:
        text = f"whether the account of {user.pw_name} has expired cannot be looked up: {error.strerror}"
        raise StartError(text) from error
    if end is not None:
        raise StartError(f"the account of {user.pw_name} expired on {end}: chage -E -1 {user.pw_name}, if it is to go on")


def users_of(job: Job) -> tuple[int, ...]:
    """Return whose files a job may use besides root's and the daemon's: those of whom it runs as. Raise StartError."""
    return () if job.user is None else (_user(job.user).pw_uid,)


def _user(name: str) -> pwd.struct_passwd:
    try:
        return user_of(name)
    except KeyError:
        raise StartError(f"there is no user {name!r} on this host") from None


def limits_of(job: Job) -> Limits | None:
    """Return what a job's process may use, or None when nothing is said."""
    if not job.limits and job.nice is None and job.ionice is None:
        return None
    return Limits(
        rlimits={RLIMITS[name]: _rlimit(name, int(job.limits[name])) for name in RLIMITS if name in job.limits},
        nice=job.nice, ionice=job.ionice, of_run={name: job.limits[name] for name in CONTROLLER_OF if name in job.limits},
    )  # fmt: skip


def _rlimit(name: str, value: int) -> tuple[int, int]:
    return (max(1, value), value + CPU_GRACE_SECONDS) if name == "cpu_time" else (value, value)


@lru_cache(maxsize=64)
def _base(who: str | int) -> dict[str, str]:
    try:
        user = pwd.getpwuid(who) if isinstance(who, int) else user_of(who)
        name, home = user.pw_name, user.pw_dir
    except KeyError:
        name, home = str(who), "/"
    # As crontab(5) has it: many a service's user has a login shell that refuses, and programs start $SHELL.
    return {"PATH": SAFE_PATH, "HOME": home, "USER": name, "LOGNAME": name, "SHELL": SHELL, "LANG": "C.UTF-8"}
