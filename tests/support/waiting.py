"""Wait for something that another process does, and say what was awaited when it does not come."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """Return the first true value of `condition`; fail after `seconds`."""
    give_up = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > give_up:
            raise AssertionError(f"{what} did not come within {seconds} s; last: {value!r}")
        pause.wait(0.02)
