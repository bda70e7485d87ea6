"""Start a child that needs more than posix_spawn can do: another user, limits, nice, a control group.

fork(2) is safe here because the keeper has one thread. An error between fork and exec ends the child before it runs
anything, and is reported through a pipe that closes at exec: a child never runs as the daemon's user by mistake.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from ...host.cgroups import write
from ...host.descriptors import set_soft_limit
from .spawn import OUTPUT_FLAGS, OUTPUT_MODE

CHUNK = 4096  # a failure that the child reports is shorter
# System call numbers by the machine name of uname(2).
_RT_SIGACTION = {"x86_64": 13, "aarch64": 134, "riscv64": 134, "i686": 174, "armv7l": 174, "ppc64le": 173, "s390x": 174}
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "i686": 289, "armv7l": 314, "ppc64le": 273, "s390x": 282}
_IOPRIO_CLASS_SHIFT = 13
_OWN_SIGNALS = (32, 33)  # of glibc, which does not let programs set them; posix_spawn has left them ignored in the keeper
_DEFAULT_ACTION = bytes(64)  # a kernel's struct sigaction of zeros is SIG_DFL; the largest has 32 bytes
_SIGNAL_SET_BYTES = 8
_libc = ctypes.CDLL(None, use_errno=True)


class ChildError(OSError):
    """An error of the child between fork and exec. Its text begins with the step, unless exec itself failed."""


def fork(order: Mapping[str, Any], stdin: int | None, group: str | None = None, descriptors: int | None = None) -> int:
    """Start the child of an order and return its process id. Raise OSError, or ChildError.

    `group` is the `cgroup.procs` file of the control group that it enters, `descriptors` its soft RLIMIT_NOFILE.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = os.fork()
            if pid == 0:
                _become(order, stdin, group, descriptors, write_end)
        finally:
            os.close(write_end)
        failure = _read_all(read_end)
    finally:
        os.close(read_end)
    if failure:
        os.waitpid(pid, 0)
        number, _, text = failure.decode("utf-8", "replace").partition(":")
        raise ChildError(int(number), text)
    return pid


def _read_all(descriptor: int) -> bytes:
    read = b""
    while more := os.read(descriptor, CHUNK):
        read += more
    return read


def _become(
    order: Mapping[str, Any], stdin: int | None, group: str | None, descriptors: int | None, report: int
) -> NoReturn:
    step = "starting"
    try:
        for name, act in _steps(order, stdin, group, descriptors):
            step = name
            act()
        step = ""
        os.execve(order["argv"][0], order["argv"], order["env"])  # noqa: S606 - that is what a scheduler is for
    except BaseException as error:  # of any kind: nothing may run, and the parent must receive the reason
        text = f"{step}: " if step else ""
        text += error.strerror or str(error) if isinstance(error, OSError) else str(error)
        os.write(report, f"{getattr(error, 'errno', None) or 0}:{text}".encode("utf-8", "replace")[:2000])
    finally:
        os._exit(127)


def _steps(
    order: Mapping[str, Any], stdin: int | None, group: str | None, descriptors: int | None
) -> list[tuple[str, Callable[[], object]]]:
    """Return the steps before exec, in order: those that need privileges, then the user, then the working directory."""
    limits, identity, umask = order.get("limits") or {}, order.get("identity"), order.get("umask")
    steps: list[tuple[str, Callable[[], object]]] = [("setsid", os.setsid), ("signals", _default_signals)]
    if group is not None:
        steps.append(("control group", lambda: write(group, "0")))
    steps.append(("output", lambda: _redirect(order["output"], stdin, identity)))
    if descriptors is not None:  # after the last open: the keeper may have more descriptors than this
        steps.append(("limit nofile", partial(set_soft_limit, descriptors)))
    if limits.get("nice") is not None:
        steps.append(("nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, limits["nice"])))
    if limits.get("ionice"):
        steps.append(("ionice", lambda: _set_ionice(*limits["ionice"])))
    for name, values in (limits.get("rlimits") or {}).items():
        steps.append((f"limit {name.lower()}", partial(_limit, name, values)))
    if umask is not None:
        steps.append(("umask", lambda: os.umask(umask)))
    if identity:
        steps.append(("user", lambda: _switch(*identity)))
    if order.get("cwd"):
        steps.append(("cwd", lambda: os.chdir(order["cwd"])))
    return steps


def _default_signals() -> None:
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    if call := _RT_SIGACTION.get(os.uname().machine):
        for own in _OWN_SIGNALS:
            _libc.syscall(call, own, _DEFAULT_ACTION, None, _SIGNAL_SET_BYTES)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _redirect(output: str, stdin: int | None, identity: Sequence[Any] | None) -> None:
    """Open input and output. The output file belongs to the user: opening /dev/stderr checks its rights again."""
    source = os.open("/dev/null", os.O_RDONLY) if stdin is None else stdin
    target = os.open(output, OUTPUT_FLAGS, OUTPUT_MODE)
    if identity:
        os.fchown(target, identity[0], identity[1])
    for number, descriptor in ((0, source), (1, target), (2, target)):
        os.dup2(descriptor, number, inheritable=True)


def _limit(name: str, values: Sequence[int]) -> None:
    which = getattr(resource, f"RLIMIT_{name}")
    _, most = resource.getrlimit(which)
    soft, hard = values
    if most != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard > most):
        hard = most  # only a privileged process may raise it
        soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(which, (soft, hard))


def _set_ionice(kind: int, level: int) -> None:
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is None:
        raise OSError(0, f"not supported on {os.uname().machine}")
    if _libc.syscall(number, 1, 0, kind << _IOPRIO_CLASS_SHIFT | level) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _switch(uid: int, gid: int, groups: Sequence[int]) -> None:
    """Become another user permanently, saved ids included, and verify that."""
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or set(os.getgroups()) != set(groups):
        raise OSError(1, "the user could not be changed")
