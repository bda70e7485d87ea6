"""Rounds: a fresh daemon, its jobs, one or two nemeses, calm again, and the judge."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import combinations, count
from pathlib import Path
from random import Random

from tests.support.servers import PostgresServer
from tests.torture.judge import Verdict, judge
from tests.torture.nemeses import ALL, Nemesis, Step
from tests.torture.work import jobs_of
from tests.torture.world import World

SOURCE = Path(__file__).with_name("mark.c")
SETTLE_SECONDS = 40.0
TURN = 0.05


@dataclass(frozen=True)
class Round:
    """What is to be done: by whom, for how long, how often jobs are due in a second, and from which seed."""

    nemeses: tuple[str, ...]
    seconds: float
    rate: float
    seed: str

    @property
    def label(self) -> str:
        """Return who acts in it."""
        return "+".join(self.nemeses)


@dataclass
class Outcome:
    """What came of a round."""

    round: Round
    verdict: Verdict
    exits: list[int] = field(default_factory=list)
    settled_after: float = 0.0
    evidence: Path | None = None


class Bench:
    """What all rounds share: the program, a PostgreSQL if one is used, a folder, and the package that is tried."""

    def __init__(self, folder: Path, with_postgres: bool = False, root: Path | None = None) -> None:
        self.folder, self.root = folder, root
        folder.mkdir(parents=True, exist_ok=True)
        self.program = folder / "mark"
        subprocess.run(["gcc", "-O2", "-static", "-o", str(self.program), str(SOURCE)], check=True)
        self.postgres = PostgresServer() if with_postgres else None
        self._scratch = Path(tempfile.mkdtemp(prefix="schedulerd-torture-"))
        self._count = 0

    def close(self) -> None:
        """Leave nothing but the evidence."""
        if self.postgres is not None:
            self.postgres.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def run(self, plan: Round) -> Outcome:
        """Run a round; the evidence of a fault is kept."""
        self._count += 1
        nemeses = [ALL[name]() for name in plan.nemeses]
        is_postgres = any(each.needs_postgres for each in nemeses) or (self.postgres is not None and self._count % 2 == 0)
        world = World(
            self._scratch / f"{self._count:04}", jobs_of(plan.rate, time.time() + 8), self.program,
            self.postgres if is_postgres else None, any(each.needs_disk for each in nemeses), self.root,
        )  # fmt: skip
        try:
            outcome = _play(world, plan, nemeses)
            if outcome.verdict.faults or outcome.exits:
                outcome.evidence = self._keep(world, outcome)
        finally:
            world.close()
            shutil.rmtree(world.folder, ignore_errors=True)
        return outcome

    def _keep(self, world: World, outcome: Outcome) -> Path:
        place = self.folder / f"{self._count:04}-{outcome.round.label}"
        ignored = shutil.ignore_patterns("filler", "outage.journal", "output", "*.sock", "socket", "notify", "results")
        shutil.copytree(world.folder, place, ignore=ignored, dirs_exist_ok=True)
        (place / "events").write_text("".join(f"{event.at:.3f} {event.words}\n" for event in world.events))
        (place / "faults").write_text("".join(f"{fault}\n" for fault in outcome.verdict.faults))
        (place / "round.json").write_text(json.dumps({**asdict(outcome.round), "exits": outcome.exits}))
        with suppress(Exception):
            rows = [asdict(row) for row in world.read()[1]]
            (place / "rows.json").write_text("\n".join(map(json.dumps, rows)))
        return place


def _play(world: World, plan: Round, nemeses: Sequence[Nemesis]) -> Outcome:
    world.start()
    random = Random(f"{plan.seed} {plan.label}")
    steps = sorted((step for each in nemeses for step in each.plan(random, plan.seconds)), key=lambda step: step.at)
    _act(world, steps, plan.seconds)
    for each in nemeses:
        each.heal(world)
    world.note("all is healed")
    settled_after = _settle(world)
    world.stop()
    return Outcome(plan, judge(world.case, *world.read()), world.exits, settled_after)


def _act(world: World, steps: list[Step], seconds: float) -> None:
    begin = time.monotonic()
    left = list(steps)
    while (now := time.monotonic() - begin) < seconds:
        while left and left[0].at <= now:
            step = left.pop(0)
            world.note(step.words)
            step.act(world)
        world.tend()
        time.sleep(TURN)


def _settle(world: World) -> float:
    """Return when everything is in order, and after how many seconds; what is not then is a fault."""
    begin = time.monotonic()
    world.case.through = world.wall() + 1.0
    wait = 2.0
    while time.monotonic() - begin < SETTLE_SECONDS:
        give_up = time.monotonic() + wait
        while time.monotonic() < give_up:
            world.tend()
            time.sleep(TURN)
        with suppress(Exception):  # the history may not be there yet
            if not judge(world.case, *world.read()).faults:
                break
        wait = min(wait + 0.5, 4.0)
    return time.monotonic() - begin


def labels(names: Sequence[str], with_pairs: bool) -> list[tuple[str, ...]]:
    """Return who acts together: each alone (`one+other` is two), and in pairs."""
    singles = [tuple(name.split("+")) for name in names]
    return singles + (list(combinations(names, 2)) if with_pairs else [])


def rounds(names: Sequence[str], with_pairs: bool, length: float, rate: float, seed: int) -> Iterator[Round]:
    """Yield rounds without end."""
    them = labels(names, with_pairs)
    for number in count():
        yield Round(them[number % len(them)], length, rate, f"{seed}/{number}")
