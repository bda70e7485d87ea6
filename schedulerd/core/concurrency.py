"""Which runs may be active at the same time: overlap policies, pools, priorities and load gates.

Pure functions: the run queue calls them and acts on the results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum

from .models import Job, Origin, Overlap, Run

MUTEX = "mutex "  # prefix of a mutex among the pools: the name of a pool contains no space
MOST_QUEUED = 100  # queued runs of one job; further ones are skipped


class Admission(StrEnum):
    """The decision of the overlap policy about a run that is to start."""

    START = "start"
    QUEUE = "queue"
    SKIP = "skip"
    REPLACE = "replace"  # queue the run and end the running one


def admit(overlap: Overlap, running: int, queued: int, most: int | None = None) -> Admission:
    """Return the decision about a new run of a job with `running` running and `queued` queued runs.

    `most` is how many runs of the job may run at the same time, None for no limit.
    """
    is_free = not queued and (running < (most or 1))
    if overlap is Overlap.ALLOW:
        is_free = queued < MOST_QUEUED and (most is None or running + queued < most)
    if is_free:
        return Admission.START
    if overlap is Overlap.QUEUE and queued < MOST_QUEUED:
        return Admission.QUEUE
    return Admission.REPLACE if overlap is Overlap.REPLACE and queued < MOST_QUEUED else Admission.SKIP


def max_running(job: Job) -> int | None:
    """Return how many runs of a job may run at the same time, None for no limit."""
    if job.overlap is Overlap.ALLOW:
        return job.max_instances
    return (job.max_instances or 1) if job.overlap is Overlap.QUEUE else 1


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued run as the choice of the next run needs it. `uses` are the slots that it needs in each pool.

    `had` are the pools that had enough free slots for it at an earlier check while another of its pools had not.
    """

    run_id: str
    job_id: str
    uses: Mapping[str, int] = field(default_factory=dict)
    priority: int = 0
    had: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Selection:
    """The runs that start now, in order, and by run id the notes about runs that wait for slots.

    `had` is as in `Waiting`. `lacks` are the pools that are too full, each with the waiting run for which its slots are
    reserved, or None when all slots are in use.
    """

    started: list[Waiting] = field(default_factory=list)
    had: dict[str, frozenset[str]] = field(default_factory=dict)
    lacks: dict[str, dict[str, str | None]] = field(default_factory=dict)


def select_runs(
    waiting: Iterable[Waiting], room: Mapping[str, int | None], taken: Mapping[str, int], limits: Mapping[str, int]
) -> Selection:
    """Return which of `waiting`, oldest first, start now.

    A higher priority goes first, then the older run. A run gets all of its slots at once or none. A run that lacks slots
    blocks the runs behind it in the pools that are too full for it, so that small runs do not starve a large one. In its
    other pools, later runs may pass it. Its slots there are reserved only when each pool that it lacks had room for it
    before (`had`), when another pool was full: otherwise two busy pools could alternate for ever. A pool that never has
    room delays no run that does not need it.

    `room` is how many more runs of a job may run (None: no limit); a run of a job without room blocks no other. `taken` are
    the slots in use, and `limits` the sizes of the pools; a mutex has one slot.
    """
    rooms, slots, selection = dict(room), _Slots(taken, limits), Selection()
    for each in sorted(waiting, key=lambda one: -one.priority):
        free = rooms.get(each.job_id)
        if free is not None and free <= 0:
            continue
        lacks = slots.lacked_by(each)
        if lacks:
            slots.reserve_for(each, lacks.keys())
            selection.lacks[each.run_id] = lacks
            selection.had[each.run_id] = each.had.union(each.uses.keys() - lacks.keys())
            continue
        slots.take(each.uses)
        if free is not None:
            rooms[each.job_id] = free - 1
        selection.started.append(each)
    return selection


class _Slots:
    """The slots of all pools during a selection."""

    def __init__(self, taken: Mapping[str, int], limits: Mapping[str, int]) -> None:
        self._taken, self._limits = dict(taken), limits
        self._held: dict[str, str] = {}  # by blocked pool: the first run that waits for it
        self._kept: dict[str, str] = {}  # by pool with reserved slots: the last run for which some are reserved

    def lacked_by(self, each: Waiting) -> dict[str, str | None]:
        """Return the pools that are too full for a run, as in `Selection.lacks`."""
        full: dict[str, str | None] = {}
        for name, weight in each.uses.items():  # with thousands of waiting runs, most cost only this loop
            if name in self._held:
                full[name] = self._held[name]
            elif self._taken.get(name, 0) + weight > self._limits.get(name, 1):
                full[name] = self._kept.get(name)
        return full

    def take(self, uses: Mapping[str, int]) -> None:
        for name, weight in uses.items():
            self._taken[name] = self._taken.get(name, 0) + weight

    def reserve_for(self, each: Waiting, full: AbstractSet[str]) -> None:
        """Block the pools that are too full for a run, and reserve its slots in the others if it missed those before."""
        for name in full:
            self._held.setdefault(name, each.run_id)
        if each.had and full <= each.had:
            others = {name: weight for name, weight in each.uses.items() if name not in full}
            self.take(others)
            self._kept |= dict.fromkeys(others, each.run_id)


@dataclass(frozen=True, slots=True)
class FullPool:
    """A pool or mutex without enough free slots for a run: `needs` more than `taken` would exceed `limit`.

    `holders` are the runs that use its slots; `kept_for` is the earlier waiting run for which slots are reserved.
    """

    name: str
    needs: int
    taken: int
    limit: int
    holders: tuple[str, ...]
    kept_for: str | None = None


def full_pools(uses: Mapping[str, int], taken: Mapping[str, int], limits: Mapping[str, int]) -> list[str]:
    """Return the pools without enough free slots."""
    return [name for name, weight in uses.items() if taken.get(name, 0) + weight > limits.get(name, 1)]


def format_pool_wait(uses: Mapping[str, int], taken: Mapping[str, int], limits: Mapping[str, int]) -> str:
    """Return why a run waits that did not get its slots."""
    names = full_pools(uses, taken, limits) or list(uses)
    parts = [
        name if name.startswith(MUTEX) else f"pool {name} ({taken.get(name, 0)} of {limits.get(name, 1)} taken)"
        for name in names
    ]
    return "waits for " + " and ".join(parts)


@dataclass(frozen=True, slots=True)
class HostLoad:
    """The load of the host: the load average of one minute, and the available memory."""

    load1: float
    free_memory_bytes: float


def unmet_condition(only_if: Mapping[str, float], load: HostLoad) -> str | None:
    """Return the first condition of a load gate that is not met, as a message; None when all are met."""
    below, above = only_if.get("load1_below"), only_if.get("free_memory_above")
    if below is not None and not load.load1 < below:
        return f"the load was {load.load1:g}, not below {below:g}"
    if above is not None and not load.free_memory_bytes > above:
        return f"{load.free_memory_bytes / 1024**2:.0f} MiB of memory were free, not more than {above / 1024**2:.0f}"
    return None


def is_gated(job: Job, run: Run) -> bool:
    """Return whether a load gate applies to the start of a run: manual runs are exempt."""
    return bool(job.only_if) and run.origin is not Origin.MANUAL
