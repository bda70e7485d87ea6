"""The built-in `cleanup`: deletes runs and outputs by retention, in small batches between which others can use the store.

`core/retention.py` has the rules. A run is deleted with its output; then outputs are deleted by their own rules. An output
without a run in the store is deleted when it is a day old. With `acts=False` nothing is changed, and the plan is returned.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from ..core.clock import DOUBTED_AHEAD, DOUBTED_SECONDS
from ..core.models import UNFINISHED, Position, Result, Status, to_text
from ..core.retention import RetentionRules, claims_kept, expired, in_order, may_go_on, outputs_to_delete, surplus_bytes
from ..core.units import counted, format_duration
from ..process.output import OutputFolder
from ..store.protocol import Store, durable
from .context import Context

PAGE = 1000  # rows or outputs that are examined together
UNKNOWN_KEPT = timedelta(days=1)
PATIENCE = 300.0  # seconds for which a batch may wait for the store

T = TypeVar("T")


@dataclass
class CleanupPlan:
    """What is deleted, or would be: runs by job, and outputs including those of the runs."""

    runs_of: Counter[str] = field(default_factory=Counter)
    outputs: int = 0
    freed_bytes: int = 0

    @property
    def runs(self) -> int:
        """Return the number of runs."""
        return self.runs_of.total()

    def __str__(self) -> str:
        return f"{counted(self.runs, 'run')} and {counted(self.outputs, 'output')} ({self.freed_bytes} bytes)"


def run(context: Context) -> Result:
    """Delete by the rules; while the store cannot be written, outputs only."""
    options, now, trouble = context.options, context.steady.now(), context.store.trouble
    is_dry, batch = options["dry_run"], options["batch"]
    kept = {job_id: claims_kept(job) for job_id, job in context.config.jobs.items()}
    cleaning = Cleaning(
        context.store, context.output, rules_of(options), now, not is_dry, batch, context.check_stop, kept,
        context.clock.now(),
    )  # fmt: skip
    plan = cleaning.clean(with_rows=trouble is None)
    details = {"runs": plan.runs, "outputs": plan.outputs, "freed_bytes": plan.freed_bytes, "dry_run": is_dry}
    text = f"{'would delete' if is_dry else 'deleted'} {plan}"
    if trouble is not None:
        text = f"{text}; no runs, since the store cannot be written: {trouble}"
    if (ahead := context.clock.now() - now) >= DOUBTED_AHEAD:
        doubt = f"the clock jumped ahead by {format_duration(ahead.total_seconds())} and is not trusted for"
        text += f"; ages were computed at {to_text(now)}: {doubt} {format_duration(DOUBTED_SECONDS)}"
    status = Status.SUCCESS if trouble is None else Status.FAILED
    return Result(status, 0 if is_dry else plan.runs, text, details=details)


def rules_of(options: Mapping[str, Any]) -> RetentionRules:
    """Return the rules in the settings of a `cleanup` job."""

    def span(name: str) -> timedelta | None:
        return None if options[name] is None else timedelta(seconds=options[name])

    return RetentionRules(
        older_than=span("older_than"), runs_per_job=options["runs_per_job"],
        keeps_last_failure=options["keep_last_failure"], keeps_last_success=options["keep_last_success"],
        outputs_older_than=span("outputs_older_than"), outputs_size=options["outputs_size"], min_free=options["min_free"],
    )  # fmt: skip


class Cleaning:
    """One cleanup of a store and its outputs.

    `check` is called between two steps, and may raise. `kept` is how long the occurrences of each job are kept. `wall` is
    the time of the clock when that is not trusted; ages are computed at `now`.
    """

    def __init__(
        self,
        store: Store,
        output: OutputFolder,
        rules: RetentionRules,
        now: datetime,
        acts: bool,
        batch: int = 500,
        check: Callable[[], None] = lambda: None,
        kept: Mapping[str, timedelta] | None = None,
        wall: datetime | None = None,
    ) -> None:
        self._store, self._output = store, output
        self._rules, self._now, self._latest = rules, now, max(now, wall or now)
        self._acts, self._batch, self._check = acts, batch, check
        self._kept = kept or {}
        self._plan = CleanupPlan()
        self._dropped: set[str] = set()  # outputs that a dry run would have deleted

    def clean(self, with_rows: bool = True) -> CleanupPlan:
        """Delete what the rules permit, or only find it. Return the plan."""
        for job_id in self._store.job_ids() if with_rows else ():
            self._clean_job(job_id)
        still = 0 if self._acts else self._plan.freed_bytes  # a dry run has left the outputs of its runs
        surplus = surplus_bytes(self._output.size_of_all() - still, _free(self._output.root) + still, self._rules)
        for day in in_order(self._output.days(), self._latest):
            self._check()
            surplus -= self._clean_day(day, surplus, with_rows)
        return self._plan

    def _clean_job(self, job_id: str) -> None:
        needed = self._store.needed(job_id, self._rules.runs_per_job, self._now)
        rules = replace(self._rules, claims_kept=self._kept.get(job_id, claims_kept(None)))
        after: Position = (-1, "")
        while rows := self._store.old_rows(job_id, after, PAGE):
            for run_ids in _batches(expired(rows, needed, rules, self._now), self._batch):
                self._check()
                gone = durable(self._store.delete_runs(run_ids), PATIENCE) if self._acts else list(run_ids)
                self._plan.runs_of[job_id] += len(gone)
                for run_id in gone:
                    self._drop(run_id)
            if not may_go_on(rows, needed, rules, self._now):
                return
            after = rows[-1].position

    def _clean_day(self, day: str, surplus: int, drops_unknown: bool) -> int:
        """Delete outputs of a day by the rules; return their size in bytes."""
        outputs = [each for each in self._output.outputs_of(day) if each.run_id not in self._dropped]
        statuses: dict[str, Status] = {}
        for page in _batches(outputs, PAGE):
            statuses |= self._store.statuses([each.run_id for each in page])
        known = [each for each in outputs if each.run_id in statuses]
        known = [replace(each, is_running=statuses[each.run_id] in UNFINISHED) for each in known]
        gone = outputs_to_delete(known, self._rules, self._now, surplus)
        if drops_unknown:
            before = self._now - UNKNOWN_KEPT
            gone += [each for each in outputs if each.run_id not in statuses and each.written_at < before]
        return sum(self._drop(each.run_id) for each in gone)

    def _drop(self, run_id: str) -> int:
        """Delete the output of a run; return the bytes freed."""
        size = self._output.size_on_disk(run_id)
        if self._acts:
            self._output.delete(run_id)
        elif size is not None:
            self._dropped.add(run_id)
        self._plan.outputs += size is not None
        self._plan.freed_bytes += size or 0
        return size or 0


def _free(folder: str) -> int:
    """Return the bytes available to the daemon in the file system of a folder."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _batches(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
