"""Hide the daemon's environment (proc(5), /proc/PID/environ) and memory (ptrace(2)) from other processes.

The environment with which a process was started stays readable for its user, even after the process changes its
variables. Its values are therefore overwritten. The variables stay in memory, where a reload finds the secrets that
`{env: X}` names. Variables that a keeper needs are no secrets, and stay.

A keeper remains visible to its user: where /proc hides processes that cannot be traced (ProtectProc=invisible), the
daemon could not see the keeper and its children. A keeper is therefore given no secrets.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
from collections.abc import Mapping

from ..core.faults import VARIABLE as FAULT
from .cgroups import VARIABLE as CGROUP

log = logging.getLogger(__name__)

_NOT_DUMPABLE = (4, 0)  # PR_SET_DUMPABLE, prctl(2): only root can trace the process, and it writes no core dump
# The variables that decide how a keeper's Python is loaded and decodes file names, and those for control groups and fault
# points. The last three belong to libraries that the tests preload.
_OF_KEEPERS = re.compile(rf"PATH|LANG|LANGUAGE|LC_\w+|LD_\w+|GLIBC_TUNABLES|{FAULT}|{CGROUP}|WALLSHIFT|IOFAULT|FDFAULT")
_ENV_START = 47  # the index of env_start in /proc/PID/stat after the name; env_end follows


def keeper_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a keeper needs; none of them is a secret."""
    return {name: value for name, value in variables.items() if _OF_KEEPERS.fullmatch(name)}


def blanked(block: bytes) -> bytes:
    """Return an environment block (NAME=VALUE, each ended by a NUL) with all but the keepers' variables replaced by NULs."""
    entries = (entry if _is_open(entry) else bytes(len(entry)) for entry in block.split(b"\0"))
    return b"\0".join(entries)


def _is_open(entry: bytes) -> bool:
    return bool(_OF_KEEPERS.fullmatch(entry.partition(b"=")[0].decode("ascii", "replace")))


def hide() -> None:
    """Overwrite the initial environment, and make this process untraceable. Called once, before there are other threads.

    A failure is logged and otherwise ignored: the daemon works without it.
    """
    try:
        _overwrite_environment()
    except (OSError, IndexError, ValueError) as error:
        log.warning(
            "the environment of the daemon remains readable in /proc/%d/environ for its user: %s", os.getpid(), error
        )
    if ctypes.CDLL(None).prctl(*_NOT_DUMPABLE, 0, 0, 0) != 0:
        log.warning("other processes of the daemon's user can read its memory: prctl(PR_SET_DUMPABLE) failed")


def _overwrite_environment() -> None:
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[_ENV_START]), int(fields[_ENV_START + 1])
    with open("/proc/self/mem", "r+b", buffering=0) as memory:  # a wrong address raises an error instead of crashing
        memory.seek(start)
        block = memory.read(end - start)
        for name, value in os.environ.items():
            if name:  # setenv(3) rejects an empty name; it copies the value, so that libraries do not read NULs
                os.environ[name] = value
        memory.seek(start)
        memory.write(blanked(block))
