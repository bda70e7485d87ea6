"""Copy a history into another one, in pages. Rows that exist are not changed, so a copy can be repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..core.models import UNFINISHED, Run, Status
from .protocol import Store, durable

PAGE = 2000  # rows
PATIENCE = 120.0  # seconds for a page
MOST_NAMED = 5


@dataclass
class CopyResult:
    """The result of a copy. `refused` are rows whose occurrence or idempotency key has another run_id in the target."""

    rows: int = 0  # read from the source
    entered: int = 0
    finished: int = 0  # were unfinished in the target, and are finished now
    refused: list[str] = field(default_factory=list)
    before: Mapping[str, int] = field(default_factory=dict)  # by status, of the source
    after: Mapping[str, int] = field(default_factory=dict)  # of the target

    @property
    def is_whole(self) -> bool:
        """Return whether the target has all rows of the source."""
        return not self.refused and self.before == self.after


def copy(source: Store, target: Store, on_page: Callable[[CopyResult], None]) -> CopyResult:
    """Copy everything; `on_page` is called after each page. Raise StoreError: the rows copied so far stay."""
    copied = CopyResult()
    records = source.jobs()
    durable(target.save_jobs(list(records.values())), PATIENCE)
    for record in records.values():
        durable(target.set_pause(record.job_id, record.pause), PATIENCE)
    after = ""
    while page := source.all_runs(after, PAGE):
        _copy_page(page, target, copied)
        after = page[-1].run_id
        on_page(copied)
    for day in source.days():
        durable(target.save_day(day, source.day(day)), PATIENCE)
    copied.before, copied.after = source.counts(), target.counts()
    return copied


def _copy_page(page: list[Run], target: Store, copied: CopyResult) -> None:
    there = target.statuses([run.run_id for run in page])
    missing = [run for run in page if run.run_id not in there]
    taken = durable(target.record(missing), PATIENCE)
    for run in page:
        if there.get(run.run_id) is Status.QUEUED and run.status is Status.RUNNING:
            durable(target.claim(run.run_id), PATIENCE)
    behind = [run for run in page if there.get(run.run_id) in UNFINISHED and run.status not in UNFINISHED]
    durable(target.finish(behind), PATIENCE)
    copied.rows += len(page)
    copied.entered += len(taken)
    copied.finished += len(behind)
    copied.refused += [run.run_id for run in missing if run.run_id not in taken]
