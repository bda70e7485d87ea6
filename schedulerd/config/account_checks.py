"""Checks the `user` and the `group` of a job against the accounts of this host."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import date
from functools import cache

from ..core.clock import SystemClock
from ..core.models import Job
from ..host.accounts import expired_on, is_known, user_of
from ..host.remedies import DROP_INS
from .fields import Path, Report


class AccountChecker:
    """Checks accounts, and looks up each user once."""

    def __init__(self) -> None:
        self._expired_on = cache(_expired_on)  # thousands of jobs may run as one user

    def check(self, job: Job, path: Path, report: Report, warn: Report) -> None:
        """Report a user or a group that cannot be used. Warn of an account that has expired: root may renew it."""
        for key, name in (("user", job.user), ("group", job.group)):
            if name is not None:
                _check(key, name, path, report)
        if job.user not in (None, "root") and os.geteuid() == 0 and (day := self._expired_on(job.user)):
            warn((*path, "user"), f"the account {job.user} expired on {day}: each run would fail")


def _check(key: str, name: str, path: Path, report: Report) -> None:
    if os.geteuid() != 0:
        report((*path, key), why_not_root(key, name))
    elif not is_known(key, name):
        report((*path, key), f"{key} {name!r} does not exist on this host")
    elif key == "user" and name != "root" and user_of(name).pw_uid == 0:
        report((*path, key), f"{name!r} is another name of root: write root, if that is intended")


def why_not_root(key: str, name: str) -> str:
    """Return why a daemon that does not run as root cannot use a user or a group, and the way out."""
    if key == "user" and is_known(key, name) and user_of(name).pw_uid == os.geteuid():
        return f"{name} is the user of the daemon: remove `user:`"
    return f"only a daemon that runs as root can start processes of another {key}: see as-root.conf ({DROP_INS})"


def _expired_on(name: str) -> date | None:
    """Return the day on which an account expired, or None. When that cannot be found out, a run will report it."""
    with suppress(KeyError, OSError):
        return expired_on(user_of(name), SystemClock().now())
    return None
