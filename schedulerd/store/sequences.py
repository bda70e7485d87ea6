"""The order in which runs are recorded: each has a sequence, larger than that of all before it.

A run_id sorts by the clock, which may be wrong: with a clock that was ahead for a minute, the runs of that minute would be
the newest ones until that time has come. So nothing but the order of recording decides which run is newer (`Run.place`).

A sequence is the time in the run_id, or one more than the last one when that is larger. So the sequences of two histories
that are joined sort as well as can be, and those of a history that was lost are not given again. They are given by the one
daemon that a history belongs to, also while the history is away.
"""

from __future__ import annotations

import threading
from dataclasses import replace

from ..core.models import Position, Run, token_of


class SequenceGenerator:
    """Gives sequences. For all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def continue_after(self, place: Position) -> None:
        """Go on behind a place that is taken."""
        with self._lock:
            self._last = max(self._last, place[0], _time_in(place[1]))

    def numbered(self, run: Run) -> Run:
        """Return a run that is recorded now with its sequence; one that has a sequence keeps it."""
        if run.sequence is not None:  # it may be of another history, from which it is copied
            self.continue_after((run.sequence, ""))
            return run
        wanted = _time_in(run.run_id)
        with self._lock:
            self._last = sequence = max(self._last + 1, wanted)
        return replace(run, sequence=sequence)


def _time_in(run_id: str) -> int:
    if not run_id:
        return 0
    try:
        return token_of(run_id)
    except ValueError:  # not one of ours
        return 0
