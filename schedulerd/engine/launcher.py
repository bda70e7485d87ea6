"""The interfaces between the engine and the launcher, which starts processes.

The launcher is built first and does not know the engine: it receives a `RunListener` with each run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ..core.models import Job, Result, Run
from ..process.spec import Cause


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that has ended, and its result. `duration_seconds` is None when it was never started."""

    job: Job
    run: Run
    result: Result
    ended_at: datetime
    duration_seconds: float | None


class RunListener(Protocol):
    """Receives the reports of a launcher about a run, from threads of the launcher."""

    def may_start(self, run: Run) -> None:
        """Raise StoppingError when a run that is about to start was ordered to end."""
        ...

    def last_success_at(self, run: Run) -> datetime | None:
        """Return the instant up to which the job of a run has done its work, or None when no success is known."""
        ...

    def on_started(self, run: Run, started_at: datetime) -> Run:
        """Accept that a run has started. Return the run with its start."""
        ...

    def on_unkilled(self, run: Run, survivors: str) -> None:
        """Accept that processes of a run survived SIGKILL; `survivors` names them."""
        ...

    def on_finished(self, ends: Sequence[Finished]) -> None:
        """Accept that runs have ended."""
        ...


class Launcher(Protocol):
    """Starts and ends runs."""

    def launch(self, job: Job, run: Run, listener: RunListener) -> None:
        """Start a run that is in the ledger. In every case, its end follows in `listener.on_finished`."""
        ...

    def adopt(self, job: Job, run: Run, listener: RunListener) -> None:
        """Report the end of a run that an earlier daemon started."""
        ...

    def end(self, run_id: str, cause: Cause) -> bool:
        """End a run before it ends itself. Return False when it has no process or function, not yet or no longer."""
        ...

    def forget(self, run_ids: list[str]) -> None:
        """Release the records of runs: their ends are in the ledger."""
        ...
