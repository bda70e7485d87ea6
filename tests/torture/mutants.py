"""Copies of the package with a fault put in: the judge must see each of them, or a pass of the campaign means nothing."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.campaign import Bench, Outcome, Round

PACKAGE = Path(__file__).parents[2] / "schedulerd"
MOST_ROUNDS = 4


@dataclass(frozen=True)
class Mutant:
    """A text of a module that another one takes the place of, and the nemeses that are to bring it to light."""

    name: str
    module: str
    text: str
    instead: str
    nemeses: tuple[str, ...]
    seen_as: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    def mutated(self) -> str:
        """Return the module with the fault. Raise ValueError when the text is not there exactly once."""
        source = (PACKAGE / self.module).read_text()
        if (number := source.count(self.text)) != 1:
            raise ValueError(f"mutant {self.name}: its text is {number} times in {self.module}")
        return source.replace(self.text, self.instead)

    def package(self, folder: Path) -> Path:
        """Make the copy, and return the folder that it is in."""
        shutil.copytree(PACKAGE, folder / "schedulerd", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "schedulerd" / self.module).write_text(self.mutated())
        return folder


MUTANTS = [
    Mutant(
        "start before commit", "engine/recording.py",
        "        return self._store.record(rows, asks)\n",
        "        self._store.record(rows, asks)\n        taken: Future[frozenset[str]] = Future()\n"
        "        taken.set_result(frozenset(run.run_id for run in rows))\n        return taken\n",
        ("clock",), ("DOUBLE",),
    ),
    Mutant(
        "ignored unique violation", "store/sqlite/apply.py",
        "        if number == len(rows):\n            return ids\n", "        return ids\n",
        ("clock",), ("DOUBLE",),
    ),
    Mutant(
        "forgotten outage journal", "store/outage.py",
        "    results = apply_each(database, changes)\n", "    results: list[Any] = []\n    changes = []\n",
        ("history",), ("LOST_ROW", "DOUBLE"),
    ),
    Mutant(
        "plan from now", "engine/reload.py",
        "                after = max(since[job_id], newest.get(job_id, since[job_id]))\n",
        "                after = self._clock.now()\n",
        ("kill",), ("SILENT_MISS",),
    ),
    Mutant(
        "end forgotten by the keeper", "process/keeper/runs.py",
        "            self._unsynced.append(child.run_id)\n",
        "            if child.pid % 20:\n                self._unsynced.append(child.run_id)\n",
        ("none",), ("STUCK",),
    ),
    Mutant(
        "next keeper that adopts nothing", "process/keeper/runs.py",
        "not (is_same_boot and self._adopt(run_id, known))", "not (is_same_boot and not run_id)",
        ("keeper",), ("DOUBLE",),
    ),
    Mutant(
        "recovery reruns what lives", "engine/recovery.py",
        "        if run.run_id in known:\n", "        if run.run_id in known and run.attempt > 1:\n",
        ("kill",), ("DOUBLE", "FALSE_NEVER_STARTED"),
    ),
    Mutant(
        "EMFILE is gone", "process/keeper/adoption.py",
        "        except OSError:\n            lives = True\n", "        except OSError:\n            lives = False\n",
        ("shortage",), ("DOUBLE", "LOST_ROW"),
    ),
    Mutant(
        "forgotten before it is recorded", "engine/executor.py",
        "        self._starters.submit(self._ended, ends)\n",
        "        self.forget([end.run_id for end in ends])\n        self._starters.submit(self._ended, ends)\n",
        ("kill",), ("FALSE_NEVER_STARTED", "DOUBLE"), {"SCHEDULERD_FAULT": "in_result:sleep:0.3:0.5"},
    ),
]  # fmt: skip


def hunt(mutant: Mutant, folder: Path, most: int = MOST_ROUNDS) -> Outcome | None:
    """Return the round in which the judge saw a mutant; None when it did not."""
    bench = Bench(folder / "evidence", root=mutant.package(folder / "package"), env=mutant.env)
    try:
        for number in range(most):
            outcome = bench.run(Round(mutant.nemeses, 8.0, 30.0, f"{mutant.name} {number}"), settle_seconds=8.0)
            if any(outcome.verdict.count(kind) for kind in mutant.seen_as):
                return outcome
    finally:
        bench.close()
    return None


def run(chosen: argparse.Namespace) -> int:
    """Hunt all mutants; return 1 when one is not seen."""
    names = [name for name in chosen.nemeses.split(",") if name]
    missed = 0
    for mutant in MUTANTS:
        if names and not any(name in mutant.name for name in names):
            continue
        outcome = hunt(mutant, chosen.evidence.absolute() / mutant.name.replace(" ", "-"))
        missed += outcome is None
        seen = {fault.kind: outcome.verdict.count(fault.kind) for fault in outcome.verdict.faults} if outcome else "NOT SEEN"
        print(f"{mutant.name} ({'+'.join(mutant.nemeses)}): {seen}", flush=True)
    return int(missed > 0)
