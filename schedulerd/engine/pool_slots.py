"""The slots of pools: their number, the runs that hold them, and the waiting runs that receive them next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ..core.concurrency import FullPool, Selection, Waiting, format_pool_wait, select_runs
from ..core.models import Job


class PoolSlots:
    """The slots of all pools. Called with the lock of the job table held."""

    def __init__(self) -> None:
        self._limits: Mapping[str, int] = {}
        self._taken: Counter[str] = Counter()
        self._of_run: dict[str, Mapping[str, int]] = {}  # the slots that the run acquired: its job may have changed since
        self._had: dict[str, frozenset[str]] = {}  # by waiting run, see `core.concurrency.Waiting`

    def limit(self, limits: Mapping[str, int]) -> None:
        """Set the number of slots of each pool. Runs keep their slots, even when the new number is smaller."""
        self._limits = dict(limits)

    def take(self, run_id: str, uses: Mapping[str, int]) -> None:
        """Assign to a run the slots that its job uses."""
        if uses:
            self._of_run[run_id] = uses
            self._taken.update(uses)

    def release(self, run_id: str) -> bool:
        """Release the slots of a run. Return whether it had any."""
        slots = self._of_run.pop(run_id, None)
        if slots:
            self._taken.subtract(slots)
        return bool(slots)

    def clear(self) -> None:
        """Release all slots."""
        self._of_run, self._taken = {}, Counter()

    def as_waiting(self, run_id: str, job: Job) -> Waiting:
        """Return the properties of a waiting run that `choose` needs."""
        return Waiting(run_id, job.job_id, job.uses, job.priority, self._had.get(run_id, frozenset()))

    def choose(self, waiting: Iterable[Waiting], room: Mapping[str, int | None]) -> list[Waiting]:
        """Return the waiting runs that start now, oldest first, and note in which pools the others have had room.

        `room` is the number of further runs that each job may have at the same time.
        """
        choice = self._choice(waiting, room)
        if choice.had:  # all runs that need slots and are ready are examined together
            self._had = choice.had
        return choice.started

    def lacking(self, waiting: Iterable[Waiting], room: Mapping[str, int | None], run_id: str, job: Job) -> list[FullPool]:
        """Return the pools that are too full for one of the waiting runs."""
        found = self._choice(waiting, room).lacks.get(run_id, {})
        return [self._full_pool(name, job.uses[name], kept_for) for name, kept_for in found.items()]

    def why_waiting(self, uses: Mapping[str, int]) -> str:
        """Return the pools that have too few free slots, as a message."""
        return format_pool_wait(uses, self._taken, self._limits)

    def _choice(self, waiting: Iterable[Waiting], room: Mapping[str, int | None]) -> Selection:
        return select_runs(waiting, room, self._taken, self._limits)

    def _full_pool(self, name: str, needs: int, kept_for: str | None) -> FullPool:
        holders = tuple(run_id for run_id, slots in self._of_run.items() if name in slots)
        return FullPool(name, needs, self._taken[name], self._limits.get(name, 1), holders, kept_for)
