"""Counts what is told in sum: the first one at once, the others, and of whom they were, when the minute is over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

TELL_SECONDS = 60.0
MOST_NAMED = 100  # of whom something is counted by name in a minute


class Tally:
    """What happens in each minute of the loop, by whose it is."""

    def __init__(self, tell: Callable[[int, list[tuple[str, int]]], None], seconds: float = TELL_SECONDS) -> None:
        """`tell` is given how often it happened in a minute, and of whom how often, the most first."""
        self._tell = tell
        self._seconds = seconds
        self._all = 0
        self._of: Counter[str] = Counter()
        self._is_quiet = True  # nothing was counted in the last minute, nor in this one
        self._is_only_first = False

    def add(self, whose: str) -> bool:
        """Count one. Return whether it is the first after a quiet minute, which is told at once."""
        is_first = self._is_quiet
        if is_first:
            self._is_quiet, self._is_only_first = False, True
            self._again()
        else:
            self._is_only_first = False
        self._all += 1
        if whose in self._of or len(self._of) < MOST_NAMED:
            self._of[whose] += 1
        return is_first

    def _again(self) -> None:
        asyncio.get_running_loop().call_later(self._seconds, self._end)

    def _end(self) -> None:
        """End a minute: tell of it, when there is more than what was told at once."""
        count, found = self._all, self._of.most_common()
        self._all, self._of = 0, Counter()
        if count and not self._is_only_first:
            self._tell(count, found)
        self._is_only_first, self._is_quiet = False, not count
        if count:
            self._again()
