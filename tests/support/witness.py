"""Jobs that write down, outside of the daemon, that they ran and how they end; and the comparison with the history."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.waiting import until

NOT_STARTED = ("skipped", "missed", "cancelled", "queued", "abandoned")  # the last: entered, but the daemon was killed then


@dataclass(frozen=True)
class Verdict:
    """What the comparison found: `wrong` are runs without their row, with another status, or said twice."""

    said: int
    wrong: list[str]
    rows_without_a_run: list[str]
    statuses: dict[str, int]


class Witness:
    """`jobs()` are for a configuration; each run adds a line with its run_id and exit code to its job's file."""

    def __init__(self, folder: Path, count: int, every: str = "1s") -> None:
        self.folder = folder
        self.count, self.every = count, every
        folder.mkdir()

    def jobs(self) -> dict[str, Any]:
        """Return so many jobs; every fifth run or so fails."""
        line = f'c=$(( $$ % 5 == 0 )); echo "$SCHEDULERD_RUN_ID $c" >> {self.folder}/$SCHEDULERD_JOB_ID; exit $c'
        return {f"job{number}": {"every": self.every, "shell": line} for number in range(self.count)}

    def said(self) -> list[tuple[str, str]]:
        """Return (run_id, exit code) of every run."""
        lines = [line for file in self.folder.iterdir() for line in file.read_text().splitlines()]
        return [(run_id, code) for run_id, code in map(str.split, lines)]

    def until_more_ran(self, count: int) -> None:
        """Return when so many more runs were there."""
        more = len(self.said()) + count
        until(lambda: len(self.said()) >= more, f"{count} more runs")

    def verdict(self, rows: Mapping[str, str]) -> Verdict:
        """Compare with the statuses by run_id that the history has."""
        said = self.said()
        times = Counter(run_id for run_id, _ in said)
        wrong = [f"{run_id} ran {number} times" for run_id, number in times.items() if number > 1]
        for run_id, code in said:
            expected = "failed" if code == "1" else "success"
            if rows.get(run_id) != expected:
                wrong.append(f"{run_id} is {rows.get(run_id)}, not {expected}")
        ghosts = [run_id for run_id, status in rows.items() if status not in NOT_STARTED and run_id not in times]
        return Verdict(len(said), wrong, ghosts, dict(Counter(rows.values())))
