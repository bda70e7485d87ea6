"""What other processes can see of the daemon: its environment (proc(5), /proc/PID/environ) and its memory (ptrace(2)).

The environment that a process was started with stays readable for its user, whatever the process does to its variables
afterwards. So the values there are overwritten, and the variables themselves live on in memory, where a reload finds the
secrets that `{env: X}` names. What a keeper needs is no secret, and stays.

A keeper itself stays visible to its user: where /proc hides what may not be traced (ProtectProc=invisible), the daemon
would not see it and what it has just started. So it is given nothing that is worth a look.
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

_NOT_DUMPABLE = (4, 0)  # PR_SET_DUMPABLE, prctl(2): nobody but root traces us, and no core has our memory in it
# How its Python is loaded and reads names of files, and where our control groups and fault points are. The last three are
# of the libraries that our tests preload.
_OF_KEEPERS = re.compile(rf"PATH|LANG|LANGUAGE|LC_\w+|LD_\w+|GLIBC_TUNABLES|{FAULT}|{CGROUP}|WALLSHIFT|IOFAULT|FDFAULT")
_ENV_START = 47  # the place of env_start among the fields of /proc/PID/stat that follow the name; env_end comes next


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
    """Take our variables out of /proc/PID/environ, and let nobody trace us. Called once, before there are other threads.

    Where that cannot be, it is told in the log: the daemon is no less able to do its work.
    """
    try:
        _overwrite_environment()
    except (OSError, IndexError, ValueError) as error:
        log.warning("the variables of the daemon stay readable in /proc/%d/environ for its user: %s", os.getpid(), error)
    if ctypes.CDLL(None).prctl(*_NOT_DUMPABLE, 0, 0, 0) != 0:
        log.warning("other processes of the daemon's user can read its memory: prctl(PR_SET_DUMPABLE) failed")


def _overwrite_environment() -> None:
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[_ENV_START]), int(fields[_ENV_START + 1])
    with open("/proc/self/mem", "r+b", buffering=0) as memory:  # a wrong address is an error there, and no crash
        memory.seek(start)
        block = memory.read(end - start)
        for name, value in os.environ.items():
            if name:  # setenv(3) takes no other one, and copies what it takes: no library finds NULs in its place
                os.environ[name] = value
        memory.seek(start)
        memory.write(blanked(block))
