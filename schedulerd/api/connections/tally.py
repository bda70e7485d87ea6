"""Summarises frequent events for the log: the first one at once, the others once a minute, with their sources."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

PERIOD_SECONDS = 60.0
MOST_NAMED = 100  # sources that are counted by name in a period


class Tally:
    """Counts events by source in each period. Use it in the thread of the event loop only."""

    def __init__(self, report: Callable[[int, list[tuple[str, int]]], None], seconds: float = PERIOD_SECONDS) -> None:
        """`report` receives the number of events in a period, and the number by source, largest first."""
        self._report = report
        self._seconds = seconds
        self._all = 0
        self._of: Counter[str] = Counter()
        self._is_quiet = True  # there was no event in the last period, nor in this one
        self._is_only_first = False

    def add(self, source: str) -> bool:
        """Count an event. Return whether it is the first after a quiet period, which the caller must log at once."""
        is_first = self._is_quiet
        if is_first:
            self._is_quiet, self._is_only_first = False, True
            self._schedule_end()
        else:
            self._is_only_first = False
        self._all += 1
        if source in self._of or len(self._of) < MOST_NAMED:
            self._of[source] += 1
        return is_first

    def _schedule_end(self) -> None:
        asyncio.get_running_loop().call_later(self._seconds, self._end)

    def _end(self) -> None:
        """End a period, and report it unless its only event was logged at once."""
        count, found = self._all, self._of.most_common()
        self._all, self._of = 0, Counter()
        if count and not self._is_only_first:
            self._report(count, found)
        self._is_only_first, self._is_quiet = False, not count
        if count:
            self._schedule_end()
