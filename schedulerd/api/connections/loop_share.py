"""Limits the strangers' share of the event loop: each iteration passes on few of their requests, so others need not wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

FIRST_AT_ONCE = 4  # first requests of connections in an iteration; they may authenticate the caller
LATER_AT_ONCE = 2  # further requests
SHARE_SECONDS = 0.003  # of an iteration; then no other request is begun: a body of a thousand chunks takes milliseconds


class LoopShare:
    """Counts the requests in an iteration of the loop, and queues those for later ones. First requests take precedence."""

    def __init__(self) -> None:
        self._waiting: tuple[deque[Callable[[], None]], ...] = (deque(), deque())  # later requests, first requests
        self._left = [LATER_AT_ONCE, FIRST_AT_ONCE]
        self._is_counted = False  # the end of this iteration is scheduled, since a request was passed on or is queued
        self._until = 0.0  # end of the strangers' share of this iteration, by the loop's clock

    def acquire(self, *, is_first: bool) -> bool:
        """Return whether a request may be passed on in this iteration, and count it."""
        if self._waiting[is_first] or not self._left[is_first] or (self._is_counted and self._is_over()):
            return False
        self._left[is_first] -= 1
        self._end_later()
        return True

    def queue(self, act: Callable[[], None], *, is_first: bool) -> None:
        """Call `act` in a later iteration."""
        self._waiting[is_first].append(act)
        self._end_later()

    def _end_later(self) -> None:
        if not self._is_counted:
            loop = asyncio.get_running_loop()
            self._is_counted, self._until = True, loop.time() + SHARE_SECONDS
            loop.call_soon(self._next)

    def _is_over(self) -> bool:
        return asyncio.get_running_loop().time() > self._until

    def _next(self) -> None:
        self._is_counted = False
        self._left = [LATER_AT_ONCE, FIRST_AT_ONCE]
        for is_first in (True, False):
            waiting, has_had = self._waiting[is_first], False
            while waiting and self._left[is_first] and not (has_had and self._is_over()):  # at least one of each kind
                self._left[is_first] -= 1
                self._end_later()
                waiting.popleft()()
                has_had = True
