"""Changes as statements of PostgreSQL: consecutive changes of one kind are one statement."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from ...core.faults import fault_point
from ...core.models import Run
from ..changes import Change, ClaimRun, DeleteRuns, FinishRuns, RecordRuns, SaveDay, SaveJobs, SetPause  # fmt: skip
from .connection import Connection

UNREADABLE = ("\\u0000", "\\ud", "NaN", "Infinity")  # in JSON: what PostgreSQL may not accept; rarely present
MOST_ROWS = 5000  # in one statement
ENDED = (
    "run_id", "status", "started_at", "finished_at", "duration_seconds", "exit_code", "records_processed", "error_message",
)  # fmt: skip
ENTERED = (
    *ENDED, "job_id", "scheduled_at", "attempt", "origin", "queued_at", "node", "actor", "idempotency_key",
    "sequence",
)  # fmt: skip
FIGURES = (
    "job_id", "records_processed", "duration_p50", "duration_p95", "lateness_p50", "lateness_p99", "duration_max",
    "lateness_p95", "output_bytes", "timezone",
)  # fmt: skip

Values = dict[str, Any]


@dataclass
class AppliedChanges:
    """The claims and deletions of a transaction, which the rows do not show."""

    claimed: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)

    def joined(self, other: AppliedChanges) -> AppliedChanges:
        """Return the union of both."""
        return AppliedChanges(self.claimed | other.claimed, self.deleted | other.deleted)

    def without(self, changes: Sequence[Change]) -> AppliedChanges:
        """Return what remains unclear when these changes have been applied."""
        claims = {change.run_id for change in changes if isinstance(change, ClaimRun)}
        deletions = {run_id for change in changes if isinstance(change, DeleteRuns) for run_id in change.run_ids}
        return AppliedChanges(self.claimed - claims, self.deleted - deletions)


class ChangeApplier:
    """Applies changes in an open transaction; `made` collects claims and deletions, `unclear` may be applied already."""

    def __init__(self, connection: Connection, sql: dict[str, str], made: AppliedChanges, unclear: AppliedChanges) -> None:
        self._connection = connection
        self._sql = sql
        self._made = made
        self._unclear = unclear
        self._makers: dict[type[Any], Callable[[Sequence[Any]], list[Any]]] = {
            RecordRuns: self._record, ClaimRun: self._claim, FinishRuns: self._finish, SaveJobs: self._save_jobs,
            SetPause: self._each(self._set_pause), DeleteRuns: self._delete_runs,
            SaveDay: self._each(self._save_day),
        }  # fmt: skip

    def apply(self, changes: Sequence[Change]) -> list[Any]:
        """Apply changes in order; return the result of each."""
        return [result for group in _groups(changes) for result in self._makers[type(group[0])](group)]

    def _record(self, changes: Sequence[RecordRuns]) -> list[frozenset[str]]:
        there = self._enter([run for change in changes for run in change.runs])
        fault_point("in_claim")
        return [frozenset(run.run_id for run in change.runs) & there for change in changes]

    def _enter(self, runs: Sequence[Run]) -> frozenset[str]:
        """Enter rows; return the run_ids that are in the ledger afterwards."""
        entered: set[str] = set()
        for rows in _portions(runs):
            entered |= self._ids("record_runs", _columns(rows, ENTERED))
        left = [run.run_id for run in runs if run.run_id not in entered]
        if left:  # in a new statement: a concurrent transaction may have committed while this one waited
            entered |= self._ids("runs_there", {"run_ids": left})
        return frozenset(entered)

    def _claim(self, changes: Sequence[ClaimRun]) -> list[bool]:
        ids = [change.run_id for change in changes]
        free = self._ids("claim_queued", {"run_ids": ids})
        if again := [run_id for run_id in ids if run_id in self._unclear.claimed and run_id not in free]:
            free |= self._ids("runs_running", {"run_ids": again})
        self._made.claimed |= free
        results = []
        for run_id in ids:
            results.append(run_id in free)
            free.discard(run_id)
        return results

    def _finish(self, changes: Sequence[FinishRuns]) -> list[frozenset[str]]:
        first: dict[str, Run] = {}
        for change in changes:
            for run in change.runs:
                first.setdefault(run.run_id, run)
        rows = list(first.values())
        ended = sum(self._do("finish_runs", _columns(portion, ENDED)) for portion in _portions(rows))
        fault_point("in_result")
        if ended < len(rows):
            return [self._finish_without_row(change, first) for change in changes]
        there = self._enter([run for change in changes for run in change.then])
        return [frozenset(run.run_id for run in change.then) & there for change in changes]

    def _finish_without_row(self, change: FinishRuns, first: Mapping[str, Run]) -> frozenset[str]:
        """Enter the runs that have no row, with their ends, then the rows that follow. Return which of these are there.

        One change after the other: a row that follows may have the idempotency key or the occurrence of a later run.
        """
        self._enter([run for run in change.runs if first[run.run_id] is run])  # rows that exist are not changed
        there = self._enter(change.then)
        return frozenset(run.run_id for run in change.then) & there

    def _save_jobs(self, changes: Sequence[SaveJobs]) -> list[None]:
        last = {record.job_id: record for change in changes for record in change.records}
        records = [last[job_id] for job_id in sorted(last)]
        if records:
            self._do("save_jobs", {
                name: [getattr(record, name) for record in records] for name in ("job_id", "rule", "planned_since")
            })  # fmt: skip
        return [None] * len(changes)

    def _set_pause(self, change: SetPause) -> None:
        pause = change.pause
        self._do("set_pause", {
            "job_id": change.job_id, "paused_at": pause.paused_at if pause else None,
            "paused_by": storable(pause.actor) if pause else None, "pause_reason": storable(pause.reason) if pause else None,
            "paused_until": pause.until if pause else None,
        })  # fmt: skip

    def _delete_runs(self, changes: Sequence[DeleteRuns]) -> list[list[str]]:
        ids = [run_id for change in changes for run_id in change.run_ids]
        gone = self._ids("delete_runs", {"run_ids": ids})
        if again := [run_id for run_id in ids if run_id in self._unclear.deleted and run_id not in gone]:
            gone |= set(again) - self._ids("runs_there", {"run_ids": again})
        self._made.deleted |= gone
        results = []
        for change in changes:
            results.append([run_id for run_id in change.run_ids if run_id in gone])
            gone.difference_update(change.run_ids)
        return results

    def _save_day(self, change: SaveDay) -> None:
        self._do("clear_day", {"day": change.day})
        columns = {name: [getattr(one, name) for one in change.jobs] for name in FIGURES}
        self._do("save_day", {"day": change.day, "runs": [_json(one.runs) for one in change.jobs], **columns})

    @staticmethod
    def _each(make: Callable[[Any], None]) -> Callable[[Sequence[Any]], list[None]]:
        def make_all(changes: Sequence[Any]) -> list[None]:
            for change in changes:
                make(change)
            return [None] * len(changes)

        return make_all

    def _do(self, query: str, values: Values) -> int:
        """Execute a statement; return how many rows were changed."""
        return self._connection.execute(self._sql[query], values).rowcount

    def _ids(self, query: str, values: Values) -> set[str]:
        return {run_id for (run_id,) in self._connection.execute(self._sql[query], values)}


def _groups(changes: Sequence[Change]) -> Iterator[list[Any]]:
    """Yield changes that can be one statement: of one kind, and no end of a row that another of them enters."""
    for kind, alike in groupby(changes, type):
        group = list(alike)
        yield from _apart(group) if kind is FinishRuns else [group]


def _apart(changes: Iterable[Any]) -> Iterator[list[FinishRuns]]:
    group: list[FinishRuns] = []
    entered: set[str] = set()
    for change in changes:
        if any(run.run_id in entered for run in change.runs):
            yield group
            group, entered = [], set()
        group.append(change)
        entered.update(run.run_id for run in change.then)
    yield group


def _portions(rows: Sequence[Run]) -> Iterator[Sequence[Run]]:
    for start in range(0, len(rows), MOST_ROWS):
        yield rows[start : start + MOST_ROWS]


def _columns(runs: Sequence[Run], names: Iterable[str]) -> Values:
    """Return runs as lists of columns."""
    columns = {name: [storable(getattr(run, name)) for run in runs] for name in names}
    return {**columns, "details": [_json(run.details) if run.details else None for run in runs]}


def storable(value: Any) -> Any:
    """Return a value that PostgreSQL can store: texts without NUL and without halves of surrogate pairs."""
    if not isinstance(value, str):
        return value
    return str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _json(value: Any) -> str:
    """Return JSON that PostgreSQL can parse; NaN and infinities, which JSON does not have, become texts."""
    text = json.dumps(value, separators=(",", ":"), default=str)
    if not any(mark in text for mark in UNREADABLE):
        return text
    return json.dumps(_plain(json.loads(text, parse_constant=str)), separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {storable(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else storable(value)
