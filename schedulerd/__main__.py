"""The command `schedulerd` (also `python -m schedulerd`): starts the daemon, or checks the configuration."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import pwd
import signal
import socket
import sys
from collections.abc import Iterable, Iterator

from . import __version__, logs
from .api.listeners import check_listen
from .api.refusal import refuse_waiting
from .backups.source import BackupError
from .config.config import Config
from .config.defaults import DEFAULT_CONFIG
from .config.json_schema import json_schema
from .config.last_good import load_to_start
from .config.loader import load
from .core.errors import ConfigError, SchedulerdError, UnsafeError
from .core.models import Job
from .core.units import counted
from .daemon import Daemon
from .host.accounts import name_of
from .host.descriptors import FEWEST, MORE_DESCRIPTORS, fill_standard, limit, raise_limit
from .host.hardening import hide
from .host.systemd import passed_sockets
from .process.spec import keep_descriptors_private
from .service.backups import Folders, catalogue_of
from .state_dir import refused_places

log = logging.getLogger(__package__)

FINAL_STATUSES = (2, 78)  # systemd does not restart the unit after these (RestartPreventExitStatus=)
FOREIGN = ("command", "shell", "python")  # the actions that run programs other than schedulerd's own
MOST_NAMED = 5
FIRST_PERSON = 1000  # the lowest uid of a person (login.defs(5), UID_MIN), who owns the jobs of their own daemon
CANNOT_START = "schedulerd cannot start as it is configured: see its log (journalctl -u schedulerd)"
SWITCH_SECONDS = 0.0005  # four threads take part in a start: each would wait Python's default of 5 ms for a busy one


def _check(path: str) -> int:
    config = load(path)
    if _become_owner_of(config.state_dir):
        config = load(path)
        if (name := name_of(os.geteuid())) != __package__:  # the user that the package creates
            print(f"note: looked at as {name}, whose state directory it is", file=sys.stderr)
    if config.skipped:
        raise ConfigError(list(config.skipped))
    check_listen(config.api)
    for warning in config.warnings:
        print(warning, file=sys.stderr)
    for line in backup_warnings(config.backup_folders):
        print(line, file=sys.stderr)
    _check_places(config)
    print(f"{path}: {counted(len(config.jobs), 'job')}, no mistakes")
    if (note := own_user_note(config.jobs.values(), os.geteuid())) is not None:
        print(note, file=sys.stderr)
    return 0


def _check_places(config: Config) -> None:
    """Raise UnsafeError if the daemon would refuse the paths of its files.

    The owner of the state directory is the user of the daemon. If the directory does not exist or has another owner, print
    the problems as warnings.
    """
    problems = refused_places(config)
    if not problems:
        return
    if os.path.isdir(config.state_dir) and os.stat(config.state_dir).st_uid == os.geteuid():
        raise UnsafeError("; ".join(problems))
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    print(f"warning: the user of the daemon is not known; this holds for {name_of(os.geteuid())}", file=sys.stderr)


def backup_warnings(folders: Folders) -> Iterator[str]:
    """Yield a warning for each job whose backup folder is refused. A missing folder is checked when it is created."""
    for folder, job in ((folder, job) for folder, jobs in folders.items() if os.path.isdir(folder) for job in jobs):
        try:
            catalogue_of(folder, [job]).close()
        except BackupError as error:
            yield f"warning: {job.job_id}: {error}"


def own_user_note(jobs: Iterable[Job], uid: int) -> str | None:
    """Return a note on the jobs that run as the daemon's own user; None if there are none, or if `uid` is a person's."""
    names = [job.job_id for job in jobs if job.user is None and job.action in FOREIGN]
    if not names or uid >= FIRST_PERSON:
        return None
    named = ", ".join(names[:MOST_NAMED]) + ", …" * (len(names) > MOST_NAMED)
    way_out = "`user:` says otherwise" if uid == 0 else "with the drop-in as-root.conf `user:` can say otherwise"
    what = f"as {name_of(uid)}, the daemon's user, for {counted(len(names), 'job')} ({named})"
    return f"note: programs run {what}, and can do what the daemon can: {way_out} (docs/security.md)"


def _become_owner_of(state_dir: str) -> bool:
    """If root, change to the owner of the state directory; return whether the user was changed.

    The check then reports what only root can read or do, because the daemon cannot.
    """
    try:
        owner = pwd.getpwuid(os.stat(state_dir).st_uid)
    except (OSError, KeyError):
        return False
    if os.geteuid() != 0 or owner.pw_uid == 0:
        return False
    os.initgroups(owner.pw_name, owner.pw_gid)
    os.setgid(owner.pw_gid)
    os.setuid(owner.pw_uid)
    return True


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="schedulerd", description="A job scheduler for this host.")
    parser.add_argument("--config", default=DEFAULT_CONFIG, metavar="FILE", help="the configuration (%(default)s)")
    parser.add_argument(
        "--strict", action="store_true",
        help="do not start when the configuration has mistakes (default: with the last good one, if there was any)",
    )  # fmt: skip
    parser.add_argument("--check-config", action="store_true", help="say what is wrong with the configuration, and exit")
    parser.add_argument("--print-schema", action="store_true", help="print the JSON Schema of the configuration, and exit")
    parser.add_argument("--log-level", choices=logs.LEVELS, default="info", help="(%(default)s)")
    parser.add_argument("--version", action="version", version=f"schedulerd {__version__}")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command `schedulerd`; return the exit status: 0, 1, 2 (invalid configuration), 75 or 78 (core/errors.py)."""
    fill_standard()
    passed = passed_sockets()
    try:
        options = make_parser().parse_args(arguments)
    except SystemExit as exit_:
        if exit_.code in FINAL_STATUSES:
            refuse_waiting(passed, CANNOT_START)
        raise
    try:
        logs.set_up(options.log_level)
        return _run(options, passed)
    except SchedulerdError as error:
        if isinstance(error, ConfigError) and options.check_config:
            print(error, file=sys.stderr)
        else:
            for line in error.problems if isinstance(error, ConfigError) else [error]:
                log.error("%s", line)
        if error.exit_status in FINAL_STATUSES:
            refuse_waiting(passed, CANNOT_START)
        return error.exit_status


def _run(options: argparse.Namespace, passed: list[socket.socket]) -> int:
    if options.print_schema:
        print(json.dumps(json_schema(), indent=2))
        return 0
    if options.check_config:
        return _check(options.config)
    hide()
    keep_descriptors_private()
    raise_limit()
    if limit() < FEWEST:
        raise SchedulerdError(f"at least {FEWEST} descriptors are needed, and there are {limit()}: {MORE_DESCRIPTORS}")
    # The parent process may have left signals blocked or SIGCHLD ignored; the daemon would receive neither.
    # SIGHUP stays blocked until the daemon handles it: a request to reload remains pending until then.
    signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGHUP})
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.setswitchinterval(SWITCH_SECONDS)
    asyncio.run(Daemon(load_to_start(options.config, options.strict), passed).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
