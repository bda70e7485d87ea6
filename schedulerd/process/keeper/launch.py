"""Start the child of an order, or explain why it cannot be started."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

from ...host.descriptors import SHORTAGES, format_os_error
from .fork import ChildError, fork
from .spawn import CAN_ENTER_GROUPS, spawn

NEEDS_FORK = ("identity", "limits", "umask")


class NotStartedError(Exception):
    """The child could not be started; nothing of it has run. `is_shortage`: any other child could have failed as well."""

    def __init__(self, text: str, is_shortage: bool) -> None:
        super().__init__(text)
        self.is_shortage = is_shortage


def launch(order: Mapping[str, Any], group: str | None = None, descriptors: int | None = None) -> int:
    """Start the child of an order and return its process id. Raise NotStartedError.

    `group` is the `cgroup.procs` file of the control group that it enters before anything of it runs, `descriptors` its soft
    RLIMIT_NOFILE (None: that of the keeper).
    """
    stdin = folder = None
    try:
        stdin = _input(order.get("input"))
        is_plain = all(order.get(name) is None for name in NEEDS_FORK)
        if not is_plain or (group is not None and not CAN_ENTER_GROUPS):
            return fork(order, stdin, group, descriptors)
        if group is not None:
            folder = os.open(os.path.dirname(group), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return _spawn(order, stdin, group, folder, descriptors)
    except (OSError, ValueError) as error:
        is_shortage = isinstance(error, OSError) and error.errno in SHORTAGES and not _has_too_many_processes(error)
        raise NotStartedError(_why(order, error), is_shortage) from error
    finally:
        for descriptor in (stdin, folder):
            if descriptor is not None:
                os.close(descriptor)


def _spawn(
    order: Mapping[str, Any], stdin: int | None, group: str | None, folder: int | None, descriptors: int | None
) -> int:
    try:
        return spawn(order["argv"], order["env"], order["output"], order.get("cwd"), stdin, folder, descriptors)
    except OSError as error:
        if folder is None or error.errno != errno.EOPNOTSUPP:
            raise
        return fork(order, stdin, group, descriptors)  # clone3(2) is blocked, as by RestrictNamespaces= of a systemd unit


def _input(text: str | None) -> int | None:
    """Return a descriptor that reads `text` (bytes as Latin-1): memory, not a pipe, which could block."""
    if text is None:
        return None
    descriptor = os.memfd_create("input")
    try:
        os.write(descriptor, text.encode("latin-1"))
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _has_too_many_processes(error: OSError | ValueError) -> bool:
    """Return whether exec failed because of RLIMIT_NPROC (execve(2), EAGAIN)."""
    return isinstance(error, ChildError) and error.errno == errno.EAGAIN


def _whom(order: Mapping[str, Any]) -> str | None:
    """Return the name of the child's user, None when it is ours. Taken from its environment: a look-up may be slow."""
    identity = order.get("identity")
    return None if not identity else order["env"].get("USER") or f"uid {identity[0]}"


def _why(order: Mapping[str, Any], error: OSError | ValueError) -> str:
    program, cwd = order["argv"][0], order.get("cwd")
    if _has_too_many_processes(error):
        return f"{program!r} cannot be started: its user has as many processes as `limits: {{processes: …}}` allows"
    if isinstance(error, OSError) and error.errno in SHORTAGES:
        return f"{program!r} cannot be started: {format_os_error(error)}"
    if cwd is not None and not os.path.isdir(cwd):
        return f"cwd {cwd!r} is not a folder"
    who = _whom(order)
    if who is not None:
        if cwd is not None and isinstance(error, ChildError) and error.strerror == f"cwd: {os.strerror(errno.EACCES)}":
            return f"{who} may not enter the cwd {cwd}"
    else:
        if cwd is not None and not os.access(cwd, os.X_OK):
            return f"cwd {cwd!r} may not be entered by the daemon's user"
        if isinstance(error, PermissionError) and not os.path.exists(program):
            return f"{program!r} may not be reached by the daemon's user"
    if not os.path.exists(program):
        return f"there is no program {program!r}"
    if not os.access(program, os.X_OK):
        return f"{program!r} may not be executed: chmod +x it, or name its interpreter first"
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return f"{program!r} cannot be started{f' as {who}' if who else ''}: {reason}"
