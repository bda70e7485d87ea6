"""How many descriptors this process may have (RLIMIT_NOFILE): as many as the host lets it, which no child inherits.

The soft limit of 1,024 is for programs that use select(2). Neither the daemon nor a keeper does, so theirs is raised to the
hard one; jobs get the one that the daemon was started with. What can be had only in part (connections, descriptors of
processes) leaves a reserve, so that starts, ends and the history never lack a descriptor.
"""

from __future__ import annotations

import errno
import os
import resource
import select
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

# What a call fails with when it is not its object that is at fault: there are too many descriptors or processes, or too
# little memory. Such an error says nothing about what was asked for.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS, errno.ENOSPC})
MORE_DESCRIPTORS = "raise LimitNOFILE= of the unit, or ulimit -n"
_REMEDIES = {
    errno.EMFILE: MORE_DESCRIPTORS,
    errno.ENFILE: "raise fs.file-max",
    errno.EAGAIN: "too many processes or threads: raise TasksMax= or LimitNPROC= of the unit, or kernel.pid_max",
}
FEWEST = 60  # with fewer nothing would be left for callers: at rest it has some 28, and LEAST_RESERVED are not theirs
MOST_RESERVED = 128
LEAST_RESERVED = 24

_at_start, _ = resource.getrlimit(resource.RLIMIT_NOFILE)


def raise_limit() -> None:
    """Raise the soft limit to the hard one, as far as the kernel lets us (fs.nr_open may be lower by now)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def fill_standard() -> None:
    """Have /dev/null as 0, 1 and 2 where they were closed at the start: else a file of ours would be one of them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def set_soft_limit(soft: int) -> None:
    """Set the soft limit, which new processes inherit; what is open already stays open. Raise OSError."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def limit_at_start() -> int:
    """Return the soft limit with which this process was started: that of the jobs."""
    return _at_start


def limit() -> int:
    """Return how many descriptors this process may have now."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def reserve(most: int) -> int:
    """Return how many of `most` descriptors are left for what cannot do without."""
    return min(MOST_RESERVED, max(LEAST_RESERVED, most // 8))


def is_spare(descriptor: int) -> bool:
    """Return whether a new descriptor leaves the reserve alone. The kernel gives the lowest number that is free."""
    most = limit()
    return descriptor < most - reserve(most)


def capacity(keepers: Iterable[int]) -> dict[str, Any]:
    """Return how many descriptors this process and the keepers (their process ids) have and may have, as health shows it.

    `trouble` is in words that they run out; None when they do not. A figure that cannot be known is None.
    """
    own = _standing(None)
    theirs = [_standing(pid) for pid in keepers]
    short = [f"the daemon has {own['in_use']} of {own['limit']}"] if _is_short(own) else []
    short += [f"a keeper has {each['in_use']} of {each['limit']}" for each in theirs if _is_short(each)]
    trouble = f"too few descriptors: {', '.join(short)}: {MORE_DESCRIPTORS}" if short else None
    return {**own, "limit_of_jobs": _at_start, "keepers": theirs, "trouble": trouble}


def _standing(pid: int | None) -> dict[str, int | None]:
    most = in_use = None
    with suppress(OSError):
        most = resource.prlimit(pid or 0, resource.RLIMIT_NOFILE)[0]
        in_use = len(os.listdir(f"/proc/{pid or 'self'}/fd")) - (pid is None)  # one is that of the list
    return {"limit": most, "in_use": in_use}


def _is_short(one: Mapping[str, int | None]) -> bool:
    most, in_use = one["limit"], one["in_use"]
    return most is not None and in_use is not None and in_use >= most - reserve(most)


def is_readable(descriptor: int, seconds: float) -> bool:
    """Return whether a descriptor has something to read, after waiting at most so long; any number may be waited for."""
    poll = select.poll()  # select(2) takes none from 1,024 on
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def raise_shortage(error: OSError) -> None:
    """Raise an error that says nothing about what was asked for; any other one says that it is gone, or not ours."""
    if error.errno in SHORTAGES:
        raise error


def format_os_error(error: OSError) -> str:
    """Return an error in words, with the remedy when it is a limit that was reached."""
    remedy = _REMEDIES.get(error.errno or 0)
    text = error.strerror or str(error)
    return f"{text} ({remedy})" if remedy else text
