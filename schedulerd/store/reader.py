"""The read side of a store: queries with named parameters, and the conversion of rows to objects.

A backend provides the text of the queries and the conversion of instants.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from ..core.models import JobRecord, Origin, Pause, Position, Run, Status, to_micros
from ..core.retention import NeededRows, RetentionRow
from .protocol import DailyFigures, EndedRun

PAGE = 1000  # rows in a page
LAST = "~"  # sorts after every run_id
ALWAYS = datetime.max.replace(tzinfo=UTC)
END: Position = (2**63 - 1, LAST)  # after every position


class StoreReader(ABC):
    """The read side of every backend; the protocols in `protocol.py` define what each read means."""

    @abstractmethod
    def _rows(self, name: str, **values: Any) -> list[Any]:
        """Return the rows of a query, with columns by name. Values are texts, numbers, instants or lists of texts."""

    @staticmethod
    @abstractmethod
    def _instant(value: Any) -> datetime:
        """Return the instant of a column."""

    def jobs(self) -> dict[str, JobRecord]:
        """Return every job that was ever planned."""
        return {row["job_id"]: self._to_record(row) for row in self._rows("jobs")}

    def last_occurrences(self, job_ids: Sequence[str], until: datetime | None = None) -> dict[str, datetime]:
        """Return each job's latest occurrence, up to a moment if one is given."""
        rows = self._rows("last_occurrences", job_ids=job_ids, until=until or ALWAYS)
        return {row["job_id"]: self._instant(row["scheduled_at"]) for row in rows if row["scheduled_at"] is not None}

    def last_results(self, job_ids: Sequence[str]) -> dict[str, Run]:
        """Return each job's newest ended run."""
        return {row["job_id"]: self._to_run(row) for row in self._rows("last_results", job_ids=job_ids)}

    def last_successes(self, job_ids: Sequence[str], until: datetime) -> dict[str, Run]:
        """Return each job's newest success up to `until`."""
        return {row["job_id"]: self._to_run(row) for row in self._rows("last_successes", job_ids=job_ids, until=until)}

    def unfinished(self) -> list[Run]:
        """Return the queued and running runs."""
        return self._runs("unfinished")

    def history(
        self, job_id: str, limit: int, before: str | None = None, statuses: Sequence[str] | None = None
    ) -> list[Run]:
        """Return a page of a job's rows, newest first."""
        sequence, run_id = self._bound(before)
        return self._runs("history", job_id=job_id, limit=limit, sequence=sequence, run_id=run_id, statuses=statuses)

    def recent(self, limit: int, before: str | None = None, statuses: Sequence[str] | None = None) -> list[Run]:
        """Return a page of the rows of all jobs, newest first."""
        is_notable = statuses is not None and Status.SUCCESS not in statuses
        query = "recent_notable" if is_notable else "recent"
        sequence, run_id = self._bound(before)
        return self._runs(query, limit=limit, sequence=sequence, run_id=run_id, statuses=statuses)

    def _bound(self, before: str | None) -> Position:
        """Return the position before which a page lies: that of a run, or after the next smaller run_id if there is none."""
        if before is None:
            return END
        row = next(iter(self._rows("place_of", run_id=before)), None)
        if row is None:
            return 0, ""
        return row["sequence"], row["run_id"] + (LAST if row["run_id"] != before else "")

    def last_place(self) -> Position:
        """Return the largest sequence and the largest run_id."""
        (row,) = self._rows("last_place")
        return row["sequence"] or 0, row["run_id"] or ""

    def occurrences(self, job_id: str, since: datetime, limit: int) -> list[Run]:
        """Return rows of occurrences, in their order."""
        return self._runs("occurrences", job_id=job_id, since=since, limit=limit)

    def followed(self, job_id: str, since: datetime) -> set[datetime]:
        """Return the ends that made a job due."""
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

    def counts(self, since: datetime | None = None, until: datetime | None = None) -> dict[str, int]:
        """Return the number of rows by status."""
        rows = self._rows("counts") if since is None else self._rows("counts_since", **_period(since, until))
        return {row["status"]: row["number"] for row in rows}

    def lateness(self, since: datetime, until: datetime | None = None) -> list[tuple[float, int]]:
        """Return the histogram of lateness."""
        rows = self._rows("lateness_since", **_period(since, until))
        return [(row["upto"] / 1e6, row["number"]) for row in rows]

    def ended_between(self, start: datetime, end: datetime) -> Iterator[EndedRun]:
        """Yield the rows that ended in [start, end)."""
        finished_at, run_id = start, ""
        while rows := self._rows("finished_between", finished_at=finished_at, run_id=run_id, end=end, limit=PAGE):
            for row in rows:
                started, scheduled = self._instant_or_none(row["started_at"]), self._instant_or_none(row["scheduled_at"])
                late = (started - scheduled).total_seconds() if scheduled is not None and started is not None else None
                names = ("job_id", "status", "duration_seconds", "records_processed", "output_bytes")
                yield EndedRun(lateness_seconds=late, **{name: row[name] for name in names})
            finished_at, run_id = self._instant(rows[-1]["finished_at"]), rows[-1]["run_id"]

    def job_ids(self) -> list[str]:
        """Return every job that has rows."""
        return [row["job_id"] for row in self._rows("job_ids")]

    def needed(self, job_id: str, runs_per_job: int | None, now: datetime) -> NeededRows:
        """Return the rows of a job that must be kept."""
        (row,) = self._rows("needed", job_id=job_id, now=now)
        skipped = None if runs_per_job is None else runs_per_job - 1
        kept = [] if skipped is None else self._rows("oldest_kept", job_id=job_id, skipped=skipped)
        return NeededRows(**dict(row), oldest_kept=(kept[0]["sequence"], kept[0]["run_id"]) if kept else None)

    def statuses(self, run_ids: Sequence[str]) -> dict[str, Status]:
        """Return the status of each run that exists."""
        return {row["run_id"]: Status(row["status"]) for row in self._rows("statuses", run_ids=run_ids)}

    def old_rows(self, job_id: str, after: Position, limit: int) -> list[RetentionRow]:
        """Return a page of a job's rows, oldest first."""
        at, (sequence, run_id) = self._instant_or_none, after
        return [
            RetentionRow(
                row["run_id"], Status(row["status"]), Origin(row["origin"]), at(row["finished_at"]), row["sequence"]
            )
            for row in self._rows("old_rows", job_id=job_id, sequence=sequence, run_id=run_id, limit=limit)
        ]

    def all_runs(self, after: str, limit: int) -> list[Run]:
        """Return a page of all rows, oldest first."""
        return self._runs("all_runs", after=after, limit=limit)

    def days(self) -> list[str]:
        """Return the days that have figures."""
        return [row["day"] for row in self._rows("days")]

    def day(self, day: str) -> list[DailyFigures]:
        """Return the figures of a day."""
        return [_to_day(row) for row in self._rows("day", day=day)]

    def daily(self, first: str, last: str, job_id: str | None = None) -> list[DailyFigures]:
        """Return the figures of a range of days."""
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
            idempotency_key=row["idempotency_key"], sequence=row["sequence"],
        )  # fmt: skip

    def _to_record(self, row: Any) -> JobRecord:
        pause = None
        if row["paused_at"] is not None:
            until = self._instant_or_none(row["paused_until"])
            pause = Pause(self._instant(row["paused_at"]), row["paused_by"], row["pause_reason"], until)
        return JobRecord(row["job_id"], row["rule"], self._instant(row["planned_since"]), pause)


def _to_day(row: Any) -> DailyFigures:
    return DailyFigures(**{**dict(row), "runs": _from_json(row["runs"])})


def _from_json(text: str | None) -> dict[str, Any]:
    return json.loads(text) if text else {}


def _period(since: datetime, until: datetime | None) -> dict[str, str]:
    return {"first": _first_run_id(since), "last": LAST if until is None else _first_run_id(until)}


def _first_run_id(since: datetime) -> str:
    """Return a text that sorts before every run_id created from `since` on (its first 48 bits are milliseconds)."""
    digits = f"{to_micros(since) // 1000:012x}"
    return f"{digits[:8]}-{digits[8:]}"
