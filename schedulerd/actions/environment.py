"""What the process specs of all actions have in common: environment, user, and limits."""

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
LAST_SUCCESS_AT = f"{OWN_PREFIX}LAST_SUCCESS_AT"  # a job may set it, for use before its first success
MAY_BE_SET = (LAST_SUCCESS_AT, FAULT)
RLIMITS = {
    "open_files": "NOFILE", "file_size": "FSIZE", "address_space": "AS", "cpu_time": "CPU", "processes": "NPROC",
    "core": "CORE", "stack": "STACK",
}  # fmt: skip
CPU_GRACE_SECONDS = 5  # between SIGXCPU at the soft limit and SIGKILL at the hard limit


def spec_of(
    job: Job,
    argv: list[str],
    env: dict[str, str],
    output_path: str,
    input: bytes | None = None,  # noqa: A002 - the name of the field of ProcessSpec
) -> ProcessSpec:
    """Return the process spec of a run by the settings of its job. Raise StartError without its user or group."""
    identity = identity_of(job)
    if job.user is not None and identity is not None:
        try:
            make_result_file(result_path(output_path, job), identity.uid)
        except OSError as error:
            raise StartError(f"cannot create the result file: {error.strerror}") from error
    return ProcessSpec(
        argv=argv, env=env, output_path=output_path, cwd=job.cwd, timeout_seconds=job.timeout_seconds,
        kill_grace_seconds=job.kill_grace_seconds, input=input, output_limit_bytes=job.output_limit_bytes,
        identity=identity, limits=limits_of(job), umask=job.umask, keeps_leftovers=job.keeps_leftovers,
    )  # fmt: skip


def environment(job: Job, run: Run, output_path: str) -> dict[str, str]:
    """Return the environment of a child: a few basic variables, those that its job sets, and those that identify the run.

    Nothing is inherited from the daemon. A job cannot set the variables that identify a run, since its processes are found
    by them.

    Raise SecretError when a secret cannot be read, StartError for an environment file that cannot be used, an unknown user,
    or a parameter that the job does not accept any more.
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
    if run.details.get("after"):  # the runs that it depends on, and their jobs, in the same order
        env["SCHEDULERD_AFTER_JOBS"] = " ".join(run.details["after"])
        env["SCHEDULERD_AFTER_RUNS"] = " ".join(run.details["after"].values())
    for name, each in values_of(job, run).items():
        env[f"SCHEDULERD_PARAM_{name.upper()}"] = as_text(each)
    env["SCHEDULERD_RESULT_FILE"] = result_path(output_path, job)
    return env


def values_of(job: Job, run: Run) -> dict[str, Any]:
    """Return the values of a run's parameters: those of the request, and defaults.

    Raise StartError when they do not match the declarations in force.
    """
    try:
        return check_params(job.params, dict(run.details.get("params", {})))
    except InvalidError as error:
        raise StartError(f"params.{error.detail['loc'][-1]}: {error}") from error


def identity_of(job: Job) -> Identity | None:
    """Return the user and groups of a job's process, None for the daemon's own. Raise StartError."""
    if job.user is None and job.group is None:
        return None
    if os.geteuid() != 0:
        raise StartError("only a daemon that runs as root can start processes as another user or group")
    user = _user(job.user) if job.user is not None else pwd.getpwuid(0)
    if user.pw_uid == 0 and job.user not in (None, "root"):
        raise StartError(f"the user {job.user!r} is root: write `user: root` if that is intended")
    if user.pw_uid != 0:
        _check_expiry(user)
    gid = user.pw_gid
    if job.group is not None:
        try:
            gid = group_of(job.group).gr_gid
        except KeyError:
            raise StartError(f"group {job.group!r} does not exist on this host") from None
    return Identity(user.pw_uid, gid, tuple(os.getgrouplist(user.pw_name, gid)))


def _check_expiry(user: pwd.struct_passwd) -> None:
    """Raise StartError for an expired account, for which cron and sshd start nothing either."""
    try:
        end = expired_on(user, SystemClock().now())
    except OSError as error:
        text = f"cannot determine whether the account of {user.pw_name} has expired: {error.strerror}"
        raise StartError(text) from error
    if end is not None:
        raise StartError(f"the account of {user.pw_name} expired on {end}: to enable it, run chage -E -1 {user.pw_name}")


def users_of(job: Job) -> tuple[int, ...]:
    """Return the uids, besides root and the daemon's, whose files a job may use: its own user. Raise StartError."""
    return () if job.user is None else (_user(job.user).pw_uid,)


def _user(name: str) -> pwd.struct_passwd:
    try:
        return user_of(name)
    except KeyError:
        raise StartError(f"user {name!r} does not exist on this host") from None


def limits_of(job: Job) -> Limits | None:
    """Return the limits of a job's process, None when it has none."""
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
    # As in crontab(5): the login shell of a service's user is often nologin, and some programs start $SHELL.
    return {"PATH": SAFE_PATH, "HOME": home, "USER": name, "LOGNAME": name, "SHELL": SHELL, "LANG": "C.UTF-8"}
