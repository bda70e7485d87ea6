"""The changes of a store as values: what is handed to its writer, one for each write of `Store`.

Each is safe to make twice: whoever does not know whether it was committed (a lost answer, a crash) makes it again. Those
that carry runs can be written down as JSON, to be made later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ..core.models import JobRecord, Origin, Pause, Run, Status, from_micros, to_micros
from .protocol import DailyFigures


@dataclass(frozen=True, slots=True)
class RecordRuns:
    """Rows enter the ledger; the result is which of them are in it now.

    `asks` says that the ledger itself has to be asked: it may have their occurrences or keys already.
    """

    runs: Sequence[Run]
    asks: bool = False


@dataclass(frozen=True, slots=True)
class ClaimRun:
    """A queued run becomes `running`; the result says whether it was still queued."""

    run_id: str


@dataclass(frozen=True, slots=True)
class FinishRuns:
    """Runs have ended, and rows that follow from that enter the ledger; the result is which of these are in it now."""

    runs: Sequence[Run]
    then: Sequence[Run] = ()


@dataclass(frozen=True, slots=True)
class SaveJobs:
    """Rules and planned_since of jobs."""

    records: Sequence[JobRecord]


@dataclass(frozen=True, slots=True)
class SetPause:
    """A job is paused, or (None) no more."""

    job_id: str
    pause: Pause | None


@dataclass(frozen=True, slots=True)
class DeleteRuns:
    """Finished rows go; the result are the run_ids of those that were there."""

    run_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class SaveDay:
    """Everything that is known of a day is replaced."""

    day: str
    jobs: Sequence[DailyFigures]


REFUSED = "what it said was refused by the history's database: schedulerd's log has it"


def without_texts(change: FinishRuns) -> FinishRuns:
    """Return the same ends without what the runs said, which is not worth more than the ends themselves."""
    runs = [replace(run, error_message=REFUSED, details={}, records_processed=0) for run in change.runs]
    return FinishRuns(runs, change.then)


Change: TypeAlias = RecordRuns | ClaimRun | FinishRuns | SaveJobs | SetPause | DeleteRuns | SaveDay
RunChange: TypeAlias = RecordRuns | ClaimRun | FinishRuns  # what can be written down, to be made later


def to_json(change: RunChange) -> dict[str, Any]:
    """Return a change as a JSON object; `from_json` makes an equal one of it."""
    if isinstance(change, RecordRuns):
        return {"record": [_run_to_json(run) for run in change.runs]}
    if isinstance(change, ClaimRun):
        return {"claim": change.run_id}
    return {"finish": [_run_to_json(run) for run in change.runs], "then": [_run_to_json(run) for run in change.then]}


def from_json(value: Mapping[str, Any]) -> RunChange:
    """Return the change that `to_json` wrote down. Raise KeyError or ValueError for anything else."""
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
