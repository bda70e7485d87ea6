"""The process that forkserver.py starts: imports schedulerd once, and forks for each daemon."""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from schedulerd import __main__ as command
from tests.support.forkserver import REQUEST_LIMIT

with contextlib.suppress(ImportError):  # what the daemons with a PostgreSQL import later
    import psycopg  # noqa: F401


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork a daemon for each request. Return the request in the daemon, and None at the end of the tests."""
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    statuses: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report_ends(statuses)
        if control in ready:
            data, descriptors, _, _ = socket.recv_fds(control, REQUEST_LIMIT, 3)
            if not data:
                return None
            pid = os.fork()
            if pid == 0:
                control.detach()
                _become(descriptors)
                request: dict[str, Any] = json.loads(data)
                return request
            stdout, stderr, statuses[pid] = descriptors
            os.close(stdout)
            os.close(stderr)
            os.write(statuses[pid], str(pid).encode())


def _report_ends(statuses: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            descriptor = statuses.pop(ended[0])
            with contextlib.suppress(BrokenPipeError):  # nobody waits for this one any more
                os.write(descriptor, str(os.waitstatus_to_exitcode(ended[1])).encode())
            os.close(descriptor)


def _become(descriptors: list[int]) -> None:
    """Have the descriptors and the signals of a process that was just started."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, descriptor in enumerate(descriptors[:2], 1):
        os.dup2(descriptor, target)
    os.closerange(3, 1 << 16)


def _run(request: dict[str, Any]) -> int:
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    sys.argv = [command.__file__, *request["words"]]
    return command.main()


def main() -> int:
    """Serve until the other side closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the tests end it
    gc.freeze()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    return 0 if request is None else _run(request)


if __name__ == "__main__":
    sys.exit(main())
