"""The rules about which runs may run at once: overlaps, pools, priorities, and what the host's load must be.

Pure: values in, decisions out. `run_queue` asks, then acts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum

from .models import Job, Origin, Overlap, Run

MUTEX = "mutex "  # before a mutex's name, where it is a pool: no pool's name has a space
MOST_QUEUED = 100  # runs of one job that wait for their turn; more are skipped


class Admission(StrEnum):
    """What the overlap policy says of a run that wants to start now."""

    START = "start"
    QUEUE = "queue"
    SKIP = "skip"
    REPLACE = "replace"  # wait for what runs, which is ended


def admit(overlap: Overlap, running: int, queued: int, most: int | None = None) -> Admission:
    """Return what becomes of a run of a job of which `running` runs run and `queued` ones wait; `most` may run at once."""
    is_free = not queued and (running < (most or 1))
    if overlap is Overlap.ALLOW:
        is_free = queued < MOST_QUEUED and (most is None or running + queued < most)
    if is_free:
        return Admission.START
    if overlap is Overlap.QUEUE and queued < MOST_QUEUED:
        return Admission.QUEUE
    return Admission.REPLACE if overlap is Overlap.REPLACE and queued < MOST_QUEUED else Admission.SKIP


def max_running(job: Job) -> int | None:
    """Return how many runs of a job may run at the same time; None is any number."""
    if job.overlap is Overlap.ALLOW:
        return job.max_instances
    return (job.max_instances or 1) if job.overlap is Overlap.QUEUE else 1


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that waits, as far as it matters here: `uses` are the seats that it needs.

    `had` are those of its pools that have had room for it, when they were looked at, while another one had not.
    """

    run_id: str
    job_id: str
    uses: Mapping[str, int] = field(default_factory=dict)
    priority: int = 0
    had: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Selection:
    """Who starts now, in the order of the starts; and by run, of those that wait for seats, what is to be remembered.

    `had` is as in `Waiting`. `lacks` are the pools that are too full, each with the waiting run whose turn comes before and
    for which its seats are kept; None where it is only full.
    """

    started: list[Waiting] = field(default_factory=list)
    had: dict[str, frozenset[str]] = field(default_factory=dict)
    lacks: dict[str, dict[str, str | None]] = field(default_factory=dict)


def select_runs(
    waiting: Iterable[Waiting], room: Mapping[str, int | None], taken: Mapping[str, int], limits: Mapping[str, int]
) -> Selection:
    """Return which of `waiting`, oldest first, are started now.

    The higher priority goes first, then the older run. A run takes all of its seats at once or none. Whoever has its turn
    but not its seats holds back those behind it in the pools that are too full for it, so that small ones do not starve a
    big one; in its other pools they pass it by. Only when each pool that it lacks is known to have had room for it before
    (`had`), and it missed that because another one was full, are its seats in the others kept for it: otherwise two busy
    pools could have room in turn for ever. A pool that never has room makes nobody wait who does not need it.

    `room` is how many more runs of a job may run (None: any number), and a run of a job without room holds nobody back.
    `taken` are the seats that are taken, `limits` all that there are; a mutex has one.
    """
    rooms, seats, choice = dict(room), _Seats(taken, limits), Selection()
    for each in sorted(waiting, key=lambda one: -one.priority):
        free = rooms.get(each.job_id)
        if free is not None and free <= 0:
            continue
        lacks = seats.lacked_by(each)
        if lacks:
            seats.keep_for(each, lacks.keys())
            choice.lacks[each.run_id] = lacks
            choice.had[each.run_id] = each.had.union(each.uses.keys() - lacks.keys())
            continue
        seats.take(each.uses)
        if free is not None:
            rooms[each.job_id] = free - 1
        choice.started.append(each)
    return choice


class _Seats:
    """The seats of all pools while runs are chosen, in their order."""

    def __init__(self, taken: Mapping[str, int], limits: Mapping[str, int]) -> None:
        self._taken, self._limits = dict(taken), limits
        self._held: dict[str, str] = {}  # by pool that gives no more seats: the first run that waits for it
        self._kept: dict[str, str] = {}  # by pool that has fewer seats to give: the last run for which some are kept

    def lacked_by(self, each: Waiting) -> dict[str, str | None]:
        """Return the pools that are too full for a run, see `Selection.lacks`."""
        full: dict[str, str | None] = {}
        for name, weight in each.uses.items():  # thousands may wait: this is all that most of them cost
            if name in self._held:
                full[name] = self._held[name]
            elif self._taken.get(name, 0) + weight > self._limits.get(name, 1):
                full[name] = self._kept.get(name)
        return full

    def take(self, uses: Mapping[str, int]) -> None:
        for name, weight in uses.items():
            self._taken[name] = self._taken.get(name, 0) + weight

    def keep_for(self, each: Waiting, full: AbstractSet[str]) -> None:
        """Keep for a run the pools that are too full for it, and its seats in the others when it missed those before."""
        for name in full:
            self._held.setdefault(name, each.run_id)
        if each.had and full <= each.had:
            others = {name: weight for name, weight in each.uses.items() if name not in full}
            self.take(others)
            self._kept |= dict.fromkeys(others, each.run_id)


@dataclass(frozen=True, slots=True)
class FullPool:
    """A pool, or mutex, that is too full for a run: `needs` more seats than the `taken` ones do not fit into `limit`.

    `holders` are the runs that have its seats; `kept_for` the waiting run that comes before and for which some are kept.
    """

    name: str
    needs: int
    taken: int
    limit: int
    holders: tuple[str, ...]
    kept_for: str | None = None


def full_pools(uses: Mapping[str, int], taken: Mapping[str, int], limits: Mapping[str, int]) -> list[str]:
    """Return the pools that have not the seats that are wanted."""
    return [name for name, weight in uses.items() if taken.get(name, 0) + weight > limits.get(name, 1)]


def format_pool_wait(uses: Mapping[str, int], taken: Mapping[str, int], limits: Mapping[str, int]) -> str:
    """Return in words what a run waits for that was not given its seats."""
    names = full_pools(uses, taken, limits) or list(uses)
    parts = [
        name if name.startswith(MUTEX) else f"pool {name} ({taken.get(name, 0)} of {limits.get(name, 1)} taken)"
        for name in names
    ]
    return "waits for " + " and ".join(parts)


@dataclass(frozen=True, slots=True)
class HostLoad:
    """How busy the host is."""

    load1: float
    free_memory_bytes: float


def unmet_condition(only_if: Mapping[str, float], load: HostLoad) -> str | None:
    """Return in words which of the conditions of a start does not hold, or None when all do."""
    below, above = only_if.get("load1_below"), only_if.get("free_memory_above")
    if below is not None and not load.load1 < below:
        return f"the load was {load.load1:g}, not below {below:g}"
    if above is not None and not load.free_memory_bytes > above:
        return f"{load.free_memory_bytes / 1024**2:.0f} MiB of memory were free, not more than {above / 1024**2:.0f}"
    return None


def is_gated(job: Job, run: Run) -> bool:
    """Return whether the start of a run depends on the host's load: not when somebody asks for it."""
    return bool(job.only_if) and run.origin is not Origin.MANUAL
