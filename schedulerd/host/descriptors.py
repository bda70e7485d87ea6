"""Limits of file descriptors (RLIMIT_NOFILE): raised for the daemon and its keepers, and not inherited by jobs.

The soft limit of 1,024 exists for programs that use select(2). The daemon and the keepers do not, so they raise it to
the hard limit; jobs get the limit with which the daemon was started. Optional descriptors (connections, descriptors of
processes) leave a reserve, so that starts, ends and the history always have one.
"""

from __future__ import annotations

import errno
import os
import resource
import select
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

# Errors that are caused by a shortage of descriptors, processes, memory or space, and say nothing about the object of the
# call.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS, errno.ENOSPC})
MORE_DESCRIPTORS = "raise LimitNOFILE= of the unit, or ulimit -n"
_REMEDIES = {
    errno.EMFILE: MORE_DESCRIPTORS,
    errno.ENFILE: "raise fs.file-max",
    errno.EAGAIN: "too many processes or threads: raise TasksMax= or LimitNPROC= of the unit, or kernel.pid_max",
}
FEWEST = 60  # the minimum for the daemon: about 28 in use when idle, LEAST_RESERVED, and some for callers
MOST_RESERVED = 128
LEAST_RESERVED = 24

_at_start, _ = resource.getrlimit(resource.RLIMIT_NOFILE)


def raise_limit() -> None:
    """Raise the soft limit to the hard limit, as far as the kernel permits (fs.nr_open may have been lowered)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def fill_standard() -> None:
    """Open /dev/null as descriptors 0, 1 and 2 where they are closed: otherwise a file of the daemon would become one."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def set_soft_limit(soft: int) -> None:
    """Set the soft limit, which new processes inherit; descriptors above it stay open. Raise OSError."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def limit_at_start() -> int:
    """Return the soft limit with which this process was started: jobs get it."""
    return _at_start


def limit() -> int:
    """Return the current soft limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def reserve(most: int) -> int:
    """Return how many of `most` descriptors are reserved for starts, ends and the history."""
    return min(MOST_RESERVED, max(LEAST_RESERVED, most // 8))


def is_spare(descriptor: int) -> bool:
    """Return whether a new descriptor leaves the reserve untouched. The kernel assigns the lowest free number."""
    most = limit()
    return descriptor < most - reserve(most)


def capacity(keepers: Iterable[int]) -> dict[str, Any]:
    """Return the descriptors in use and the limits of this process and of the keepers with these process ids, for health.

    `trouble` is a message when a limit is nearly reached, else None. A figure that cannot be read is None.
    """
    own = _usage(None)
    theirs = [_usage(pid) for pid in keepers]
    short = [f"the daemon has {own['in_use']} of {own['limit']}"] if _is_short(own) else []
    short += [f"a keeper has {each['in_use']} of {each['limit']}" for each in theirs if _is_short(each)]
    trouble = f"too few descriptors: {', '.join(short)}: {MORE_DESCRIPTORS}" if short else None
    return {**own, "limit_of_jobs": _at_start, "keepers": theirs, "trouble": trouble}


def _usage(pid: int | None) -> dict[str, int | None]:
    most = in_use = None
    with suppress(OSError):
        most = resource.prlimit(pid or 0, resource.RLIMIT_NOFILE)[0]
        in_use = len(os.listdir(f"/proc/{pid or 'self'}/fd")) - (pid is None)  # without the descriptor that lists the folder
    return {"limit": most, "in_use": in_use}


def _is_short(one: Mapping[str, int | None]) -> bool:
    most, in_use = one["limit"], one["in_use"]
    return most is not None and in_use is not None and in_use >= most - reserve(most)


def is_readable(descriptor: int, seconds: float) -> bool:
    """Return whether a descriptor becomes readable within `seconds`; it may have any number."""
    poll = select.poll()  # select(2) supports numbers below 1,024 only
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def raise_shortage(error: OSError) -> None:
    """Raise `error` if it is caused by a shortage; any other error means that the object is gone or inaccessible."""
    if error.errno in SHORTAGES:
        raise error


def format_os_error(error: OSError) -> str:
    """Return the message of an error, with the remedy when a limit was reached."""
    remedy = _REMEDIES.get(error.errno or 0)
    text = error.strerror or str(error)
    return f"{text} ({remedy})" if remedy else text
