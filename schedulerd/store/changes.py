"""The changes of a store as values: one class for each write of `Store`.

Each can safely be applied twice: when it is unknown whether a change was committed (lost answer, crash), it is applied
again. Changes of runs can be serialized as JSON and applied later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ..core.models import JobRecord, Origin, Pause, Run, Status, from_micros, to_micros
from .protocol import DailyFigures


@dataclass(frozen=True, slots=True)
class RecordRuns:
    """Enter rows into the ledger; the result is the run_ids that are in it afterwards.

    `asks`: only the ledger itself may decide, because it may have these occurrences or keys already.
    """

    runs: Sequence[Run]
    asks: bool = False


@dataclass(frozen=True, slots=True)
class ClaimRun:
    """Change a queued run to `running`; the result is whether it was still queued."""

    run_id: str


@dataclass(frozen=True, slots=True)
class FinishRuns:
    """Write the ends of runs and enter the rows that follow; the result is which of these rows are in the ledger."""

    runs: Sequence[Run]
    then: Sequence[Run] = ()


@dataclass(frozen=True, slots=True)
class SaveJobs:
    """Save rule and planned_since of jobs."""

    records: Sequence[JobRecord]


@dataclass(frozen=True, slots=True)
class SetPause:
    """Pause a job, or resume it (None)."""

    job_id: str
    pause: Pause | None


@dataclass(frozen=True, slots=True)
class DeleteRuns:
    """Delete finished rows; the result is the run_ids that were deleted."""

    run_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class SaveDay:
    """Replace all figures of a day."""

    day: str
    jobs: Sequence[DailyFigures]


REFUSED = "the database of the history refused its message and details: see the log of schedulerd"


def without_texts(change: FinishRuns) -> FinishRuns:
    """Return the same ends without messages and details."""
    runs = [replace(run, error_message=REFUSED, details={}, records_processed=0) for run in change.runs]
    return FinishRuns(runs, change.then)


Change: TypeAlias = RecordRuns | ClaimRun | FinishRuns | SaveJobs | SetPause | DeleteRuns | SaveDay
RunChange: TypeAlias = RecordRuns | ClaimRun | FinishRuns  # serializable


def to_json(change: RunChange) -> dict[str, Any]:
    """Return a change as a JSON object, the inverse of `from_json`."""
    if isinstance(change, RecordRuns):
        return {"record": [_run_to_json(run) for run in change.runs]}
    if isinstance(change, ClaimRun):
        return {"claim": change.run_id}
    return {"finish": [_run_to_json(run) for run in change.runs], "then": [_run_to_json(run) for run in change.then]}


def from_json(value: Mapping[str, Any]) -> RunChange:
    """Return the change of a JSON object. Raise KeyError or ValueError for an invalid one."""
    if "record" in value:
        return RecordRuns([_run_from_json(run) for run in value["record"]])
    if "claim" in value:
        return ClaimRun(str(value["claim"]))
    return FinishRuns([_run_from_json(run) for run in value["finish"]], [_run_from_json(run) for run in value["then"]])


_INSTANTS = ("scheduled_at", "queued_at", "started_at", "finished_at")


def _run_to_json(run: Run) -> dict[str, Any]:
    instants = {name: None if (at := getattr(run, name)) is None else to_micros(at) for name in _INSTANTS}
    return {
        "run_id": run.run_id, "job_id": run.job_id, "origin": run.origin, "status": run.status, "attempt": run.attempt,
        **instants, "duration_seconds": run.duration_seconds, "exit_code": run.exit_code,
        "records_processed": run.records_processed, "error_message": run.error_message, "details": dict(run.details),
        "node": run.node, "actor": run.actor, "idempotency_key": run.idempotency_key, "sequence": run.sequence,
    }  # fmt: skip


def _run_from_json(value: Mapping[str, Any]) -> Run:
    instants = {name: None if value[name] is None else from_micros(value[name]) for name in _INSTANTS}
    return Run(**{**value, **instants, "origin": Origin(value["origin"]), "status": Status(value["status"])})
