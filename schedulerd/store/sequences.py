"""The order of recording: each run has a sequence that is larger than those of all runs before it.

A run_id sorts by the clock, which may be wrong: after a clock was ahead, the runs of that period would be the newest until
that time is reached. So only the sequence decides which of two runs is newer.

A sequence is the time in the run_id, or the last sequence plus one when that is larger. So the sequences of two merged
histories sort by time as far as possible, and sequences of a lost history are not used again. The daemon that owns the
history assigns them, also during an outage.
"""

from __future__ import annotations

import threading
from dataclasses import replace

from ..core.models import Position, Run, token_of


class SequenceGenerator:
    """Assigns sequences; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def continue_after(self, place: Position) -> None:
        """Continue after a position that is in use."""
        with self._lock:
            self._last = max(self._last, place[0], _time_in(place[1]))

    def numbered(self, run: Run) -> Run:
        """Return a run with its sequence; a run that has one keeps it."""
        if run.sequence is not None:  # it may be copied from another history
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
    except ValueError:  # not a run_id of schedulerd
        return 0
