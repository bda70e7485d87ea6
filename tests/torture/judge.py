"""The comparison of the jobs' books with the oracle and with the rows of the history.

| fault               | is                                                                                                 |
|---------------------|----------------------------------------------------------------------------------------------------|
| DOUBLE              | an attempt was started twice, or a further one beside the one before, or after its success         |
| SILENT_MISS         | an occurrence was due, and has neither a row nor a start; or what follows an end did not            |
| LOST_ROW            | a start has no row, or the row says something else of the end than the book does                    |
| FALSE_NEVER_STARTED | a row says that nothing was started, and the book has it                                            |
| PHANTOM             | a start that nothing made due, or a row of an end that is in no book                                |
| EARLY               | a start before its time, on the daemon's own clock                                                  |
| STUCK               | a row that is not final although all is calm                                                        |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from tests.torture.books import Books, Start
from tests.torture.ledger import Row
from tests.torture.work import Work

FAULTS = ("DOUBLE", "SILENT_MISS", "LOST_ROW", "FALSE_NEVER_STARTED", "PHANTOM", "EARLY", "STUCK")
OPEN = ("queued", "running")
NOT_STARTED = ("skipped", "missed", "cancelled", "queued")
OWN = ("schedule", "catch_up")
SLACK = 2.0  # seconds between an end and its line in the keeper's journal
EARLY = 0.002


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, its job, and what was found."""

    kind: str
    job_id: str
    words: str

    def __str__(self) -> str:
        """Return it as a line."""
        return f"{self.kind} {self.job_id}: {self.words}"


@dataclass
class Case:
    """What is judged: occurrences from `since` to `through`, seconds of the daemon's clock.

    `losses` are the times (CLOCK_BOOTTIME, from and to) in which keepers died: an end of these may have been seen by nobody.
    `crashes` are those at which all jobs were killed, `highest` is how far the daemon's clock had ever been at a time.
    """

    jobs: Mapping[str, Work]
    since: float
    through: float
    losses: list[tuple[float, float]] = field(default_factory=list)
    crashes: list[float] = field(default_factory=list)
    steps: list[tuple[float, float]] = field(default_factory=list)  # (boottime, the clock as it was before it was set back)


@dataclass
class Verdict:
    """What was found, and of how much."""

    due: int = 0
    starts: int = 0
    rows: int = 0
    faults: list[Fault] = field(default_factory=list)

    def count(self, kind: str) -> int:
        """Return how many faults of a kind there are."""
        return sum(fault.kind == kind for fault in self.faults)


def judge(case: Case, books: Books, rows: list[Row]) -> Verdict:
    """Compare."""
    by_run = {row.run_id: row for row in rows}
    verdict = Verdict(starts=len(books.starts), rows=len(rows))
    verdict.faults += _doubles(case, books, by_run)
    verdict.due, missed = _missed(case, books, rows)
    verdict.faults += missed
    verdict.faults += _not_followed(case, rows, by_run)
    for start in books.starts:
        verdict.faults += _of_start(case, books, start, by_run.get(start.run_id))
    verdict.faults += _of_rows(case, books, rows, by_run)
    return verdict


def _doubles(case: Case, books: Books, by_run: Mapping[str, Row]) -> Iterator[Fault]:
    by_occurrence: dict[tuple[str, object], list[Start]] = defaultdict(list)
    by_run_id: dict[str, list[Start]] = defaultdict(list)
    for start in books.starts:
        by_run_id[start.run_id].append(start)
        if start.at is not None:
            by_occurrence[start.job_id, round(start.at * 1e6)].append(start)
    for run_id, starts in by_run_id.items():
        if len(starts) > 1:
            yield Fault("DOUBLE", starts[0].job_id, f"run {run_id} was started {len(starts)} times")
    for starts in by_occurrence.values():
        for one, next_one in pairwise(sorted(starts, key=lambda start: (start.attempt, start.boot))):
            if one.run_id != next_one.run_id and (why := _is_double(case, books, one, next_one, by_run)):
                runs = f"runs {one.run_id} and {next_one.run_id}, attempts {one.attempt} and {next_one.attempt}"
                yield Fault("DOUBLE", one.job_id, f"what was due at {one.at}, {runs}: {why}")


def _is_double(case: Case, books: Books, one: Start, next_one: Start, by_run: Mapping[str, Row]) -> str | None:
    if one.attempt == next_one.attempt:
        return "the same attempt twice"
    end = books.ends.get(one.run_id)
    if end is None:
        return None if _crashed(case, one, next_one.boot) else "the attempt before has not ended"
    if next_one.boot < end.boot:
        return "the attempt before still ran"
    row = by_run.get(one.run_id)
    is_excused = row is not None and row.status == "abandoned" and _is_excused(case, one, end.boot)
    return "the attempt before was a success" if end.code == 0 and not is_excused else None


def _missed(case: Case, books: Books, rows: list[Row]) -> tuple[int, list[Fault]]:
    """Return how many occurrences were due, and those of which nobody knows anything."""
    told: dict[str, set[float]] = defaultdict(set)
    gaps: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row.at is not None and row.origin in OWN:
            told[row.job_id].add(row.at)
            if row.gap is not None:
                gaps[row.job_id].append(row.gap)
    started = {(start.job_id, start.at) for start in books.starts}
    number, faults = 0, []
    for job_id, work in case.jobs.items():
        if work.rule is None:
            continue
        due = work.rule.times(case.since, case.through)
        number += len(due)
        left = [at for at in due if at not in told[job_id] and (job_id, at) not in started]
        lost = [at for at in left if not any(first <= at <= last for first, last in gaps[job_id])]
        faults += [Fault("SILENT_MISS", job_id, f"what was due at {at}") for at in lost]
    return number, faults


def _not_followed(case: Case, rows: list[Row], by_run: Mapping[str, Row]) -> Iterator[Fault]:
    """Yield the ends that a job was to follow and did not, and the attempts that were promised and are not there."""
    followed = {(row.job_id, run) for row in rows for run in row.details.get("after", {}).values()}
    for work in case.jobs.values():
        for row in rows:
            if row.job_id != work.follows or row.status != "success" or not case.since < row.queued_at < case.through - 2:
                continue
            if (work.job_id, row.run_id) not in followed:
                yield Fault("SILENT_MISS", work.job_id, f"nothing followed run {row.run_id} of {row.job_id}")
    for row in rows:
        if (retry := row.details.get("retry")) is not None and retry not in by_run:
            yield Fault("LOST_ROW", row.job_id, f"run {row.run_id} promises run {retry}, which has no row")


def _of_start(case: Case, books: Books, start: Start, row: Row | None) -> Iterator[Fault]:
    work = case.jobs.get(start.job_id)
    if work is not None and start.at is not None and not _was_due(case, work, start.at):
        yield Fault("PHANTOM", start.job_id, f"run {start.run_id} for {start.at}, when nothing was due")
    if start.at is not None and start.wall < start.at - EARLY and not _was_reached(case, start):
        yield Fault("EARLY", start.job_id, f"run {start.run_id} started {start.at - start.wall:.3f} s too early")
    if row is None:
        yield Fault("LOST_ROW", start.job_id, f"run {start.run_id} for {start.at} was started and has no row")
    elif fault := _of_end(case, books, start, row):
        yield Fault(fault[0], start.job_id, f"run {start.run_id} for {start.at}: {fault[1]}")


def _was_due(case: Case, work: Work, at: float) -> bool:
    """Return whether a time is one of the job's; set back, what follows elapsed time goes on beside them."""
    return work.rule is None or work.rule.knows(at) or (work.flows and bool(case.steps))


def _of_end(case: Case, books: Books, start: Start, row: Row) -> tuple[str, str] | None:
    """Return what is wrong about the row of a run that was started."""
    if row.status in NOT_STARTED or "never started" in row.message:
        return "FALSE_NEVER_STARTED", f"its row says {row.status}: {row.message}"
    if row.status == "running":  # STUCK, if it stays so
        return None
    end = books.ends.get(start.run_id)
    if end is None:
        return None if _crashed(case, start, None) else ("LOST_ROW", f"{row.status}, and it wrote no end: {row.message}")
    if row.status == "abandoned" and _is_excused(case, start, end.boot):
        return None
    expected = "success" if end.code == 0 else "failed"
    if row.status != expected or row.exit_code != end.code:
        return "LOST_ROW", f"it ended with {end.code}, and its row says {row.status}, {row.exit_code}: {row.message}"
    return None


def _of_rows(case: Case, books: Books, rows: list[Row], by_run: Mapping[str, Row]) -> Iterator[Fault]:
    started = {start.run_id for start in books.starts}
    for row in rows:
        if row.status in OPEN and row.queued_at < case.through:
            yield Fault("STUCK", row.job_id, f"run {row.run_id} for {row.at} is {row.status}")
        if row.status == "success" and row.run_id not in started:
            yield Fault("PHANTOM", row.job_id, f"run {row.run_id} for {row.at} is a success and was not started")


def _is_excused(case: Case, start: Start, end: float) -> bool:
    """Return whether a run's end may have been seen by nobody: its keeper died before it could write it down.

    What it was just starting may begin a moment after its death.
    """
    return any(first <= end + SLACK and start.boot <= last + SLACK for first, last in case.losses)


def _crashed(case: Case, start: Start, before: float | None) -> bool:
    return any(start.boot - SLACK <= at and (before is None or at <= before) for at in case.crashes)


def _was_reached(case: Case, start: Start) -> bool:
    """Return whether the time was reached before the clock was set back."""
    return start.at is not None and any(boot <= start.boot and was >= start.at for boot, was in case.steps)
