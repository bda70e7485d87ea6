"""Threads that cannot be started: what is asked for their stacks is more than there are addresses."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

TOO_MUCH = 2**47


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Let no thread be started in this process: `can't start new thread`, as at RLIMIT_NPROC or a control group's limit."""
    before = threading.stack_size(TOO_MUCH)
    try:
        yield
    finally:
        threading.stack_size(before)
