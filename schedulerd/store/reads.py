"""The half of a store that reads: queries with values by name, and rows made into what the rest of the program uses.

A backend brings the queries' text, and how it spells instants.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from ..model import JobRecord, Origin, Pause, Run, Status, to_micros
from ..retention import Needed, Old
from . import DayOfJob, Ended

PAGE = 1000  # rows that are read at once of what is read in pages
LAST = "~"  # sorts behind every run_id


class Reads(ABC):
    """What every backend does with reads; `Store` says what each of them means."""

    @abstractmethod
    def _rows(self, name: str, **values: Any) -> list[Any]:
        """Return the rows of a query, with columns by name; values are texts, numbers, instants or lists of texts."""

    @staticmethod
    @abstractmethod
    def _instant(value: Any) -> datetime:
        """Return an instant as a row has it."""

    def jobs(self) -> dict[str, JobRecord]:
        """Return every job that was ever planned."""
        return {row["job_id"]: self._to_record(row) for row in self._rows("jobs")}

    def last_occurrences(self, job_ids: Sequence[str]) -> dict[str, datetime]:
        """Return each job's newest occurrence."""
        rows = self._rows("last_occurrences", job_ids=job_ids)
        return {row["job_id"]: self._instant(row["scheduled_at"]) for row in rows if row["scheduled_at"] is not None}

    def last_results(self, job_ids: Sequence[str]) -> dict[str, Run]:
        """Return each job's newest ended run."""
        return {row["job_id"]: self._to_run(row) for row in self._rows("last_results", job_ids=job_ids)}

    def last_successes(self, job_ids: Sequence[str]) -> dict[str, Run]:
        """Return each job's newest success."""
        return {row["job_id"]: self._to_run(row) for row in self._rows("last_successes", job_ids=job_ids)}

    def unfinished(self) -> list[Run]:
        """Return what is queued or running."""
        return self._runs("unfinished")

    def history(
        self, job_id: str, limit: int, before: str | None = None, statuses: Sequence[str] | None = None
    ) -> list[Run]:
        """Return a page of a job's rows, newest first."""
        return self._runs("history", job_id=job_id, limit=limit, before=before or LAST, statuses=statuses)

    def recent(self, limit: int, before: str | None = None, statuses: Sequence[str] | None = None) -> list[Run]:
        """Return a page of the rows of all jobs, newest first."""
        is_notable = statuses is not None and Status.SUCCESS not in statuses
        query = "recent_notable" if is_notable else "recent"
        return self._runs(query, limit=limit, before=before or LAST, statuses=statuses)

    def occurrences(self, job_id: str, since: datetime, limit: int) -> list[Run]:
        """Return rows of occurrences, in their order."""
        return self._runs("occurrences", job_id=job_id, since=since, limit=limit)

    def followed(self, job_id: str, since: datetime) -> set[datetime]:
        """Return the ends that a job was due after."""
        return {self._instant(row["scheduled_at"]) for row in self._rows("followed", job_id=job_id, since=since)}

    def durations(self, job_ids: Sequence[str], limit: int) -> dict[str, list[float]]:
        """Return the durations of the newest successful runs."""
        out: dict[str, list[float]] = {}
        for row in self._rows("durations", job_ids=job_ids, limit=limit):
            out.setdefault(row["job_id"], []).append(row["duration_seconds"])
        return out

    def run(self, run_id: str) -> Run | None:
        """Return a run."""
        return next(iter(self._runs("run", run_id=run_id)), None)

    def run_by_key(self, job_id: str, key: str) -> Run | None:
        """Return the run of an idempotency key."""
        return next(iter(self._runs("run_by_key", job_id=job_id, key=key)), None)

    def counts(self, since: datetime | None = None) -> dict[str, int]:
        """Return the number of rows by status."""
        rows = self._rows("counts") if since is None else self._rows("counts_since", first=_first_run_id(since))
        return {row["status"]: row["number"] for row in rows}

    def lateness(self, since: datetime) -> list[tuple[float, int]]:
        """Return classes of lateness."""
        rows = self._rows("lateness_since", first=_first_run_id(since))
        return [(row["upto"] / 1e6, row["number"]) for row in rows]

    def ended_between(self, start: datetime, end: datetime) -> Iterator[Ended]:
        """Yield the rows that ended in [start, end)."""
        finished_at, run_id = start, ""
        while rows := self._rows("finished_between", finished_at=finished_at, run_id=run_id, end=end, limit=PAGE):
            for row in rows:
                started, scheduled = self._instant_or_none(row["started_at"]), self._instant_or_none(row["scheduled_at"])
                late = (started - scheduled).total_seconds() if scheduled is not None and started is not None else None
                names = ("job_id", "status", "duration_seconds", "records_processed", "output_bytes")
                yield Ended(lateness_seconds=late, **{name: row[name] for name in names})
            finished_at, run_id = self._instant(rows[-1]["finished_at"]), rows[-1]["run_id"]

    def job_ids(self) -> list[str]:
        """Return every job that has rows."""
        return [row["job_id"] for row in self._rows("job_ids")]

    def needed(self, job_id: str, runs_per_job: int | None) -> Needed:
        """Return the rows of a job that others need."""
        (row,) = self._rows("needed", job_id=job_id, runs_per_job=runs_per_job)
        return Needed(**dict(row))

    def statuses(self, run_ids: Sequence[str]) -> dict[str, Status]:
        """Return the status of each run that is there."""
        return {row["run_id"]: Status(row["status"]) for row in self._rows("statuses", run_ids=run_ids)}

    def old_rows(self, job_id: str, after: str, limit: int) -> list[Old]:
        """Return a page of a job's rows, oldest first."""
        return [
            Old(row["run_id"], Status(row["status"]), Origin(row["origin"]), self._instant_or_none(row["finished_at"]))
            for row in self._rows("old_rows", job_id=job_id, after=after, limit=limit)
        ]

    def all_runs(self, after: str, limit: int) -> list[Run]:
        """Return a page of all rows, oldest first."""
        return self._runs("all_runs", after=after, limit=limit)

    def days(self) -> list[str]:
        """Return the days that are known."""
        return [row["day"] for row in self._rows("days")]

    def day(self, day: str) -> list[DayOfJob]:
        """Return what is known of a day."""
        return [_to_day(row) for row in self._rows("day", day=day)]

    def daily(self, first: str, last: str, job_id: str | None = None) -> list[DayOfJob]:
        """Return what is known of a stretch of days."""
        return [_to_day(row) for row in self._rows("daily", first=first, last=last, job_id=job_id or "")]

    def _runs(self, query: str, **values: Any) -> list[Run]:
        return [self._to_run(row) for row in self._rows(query, **values)]

    def _instant_or_none(self, value: Any) -> datetime | None:
        return None if value is None else self._instant(value)

    def _to_run(self, row: Any) -> Run:
        at = self._instant_or_none
        return Run(
            run_id=row["run_id"], job_id=row["job_id"], origin=Origin(row["origin"]), status=Status(row["status"]),
            queued_at=self._instant(row["queued_at"]), scheduled_at=at(row["scheduled_at"]), attempt=row["attempt"],
            started_at=at(row["started_at"]), finished_at=at(row["finished_at"]),
            duration_seconds=row["duration_seconds"], exit_code=row["exit_code"],
            records_processed=row["records_processed"], error_message=row["error_message"],
            details=_from_json(row["details"]), node=row["node"], actor=row["actor"],
            idempotency_key=row["idempotency_key"],
        )  # fmt: skip

    def _to_record(self, row: Any) -> JobRecord:
        pause = None
        if row["paused_at"] is not None:
            until = self._instant_or_none(row["paused_until"])
            pause = Pause(self._instant(row["paused_at"]), row["paused_by"], row["pause_reason"], until)
        return JobRecord(row["job_id"], row["rule"], self._instant(row["planned_since"]), pause)


def _to_day(row: Any) -> DayOfJob:
    return DayOfJob(**{**dict(row), "runs": _from_json(row["runs"])})


def _from_json(text: str | None) -> dict[str, Any]:
    return json.loads(text) if text else {}


def _first_run_id(since: datetime) -> str:
    """Return a text that sorts before every run_id made at or after `since` (their first 48 bits are milliseconds)."""
    digits = f"{to_micros(since) // 1000:012x}"
    return f"{digits[:8]}-{digits[8:]}"
