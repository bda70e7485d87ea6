"""`python -m schedulerd.process.keeper FOLDER READY [ADDRESS [DESCRIPTORS]]`: run the keeper of a folder."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from ...host.descriptors import raise_limit
from .folder import KeeperFolder
from .keeper import Keeper

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)
# The keeper ends when its work is done, not because a job sends a signal to its parent.
IGNORED = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}


def main(folder: str, ready: int, name: str = "", descriptors: int | None = None) -> int:
    """Run a keeper until no work is left. Return 75 (EX_TEMPFAIL) when another keeper holds the folder.

    A byte is written to the descriptor `ready` once the socket exists. `name` is the abstract address of the folder,
    `descriptors` the soft RLIMIT_NOFILE of children.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # blocked signals are inherited: no end would be noticed
    raise_limit()
    os.closerange(max(ready, 2) + 1, os.sysconf("SC_OPEN_MAX"))  # children inherit no descriptor of the daemon
    os.set_inheritable(ready, False)
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    own = KeeperFolder(folder, f"\0{name}" if name else None)
    if not own.lock():
        return 75
    keeper = Keeper(own, own.listen(), descriptors)
    own.publish()
    os.write(ready, b"1")
    os.close(ready)
    keeper.run()
    own.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:])))
