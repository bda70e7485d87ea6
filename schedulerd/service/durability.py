"""Acts on changes once the store or the outage journal has them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


def when_durable(change: Future[Any], act: Callable[[Any], None]) -> None:
    """Call `act` with the result of a change when it is durable. The caller receives the error of a change that failed."""
    change.add_done_callback(lambda done: act(done.result()) if done.exception() is None else None)
