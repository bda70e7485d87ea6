"""Rounds: a fresh daemon, its jobs, one or two nemeses, calm again, and the judge."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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

    def __init__(
        self, folder: Path, with_postgres: bool = False, root: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.root, self.env = folder, root, dict(env or {})
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

    def world(self, rate: float, is_postgres: bool = False, is_on_disk: bool = False) -> World:
        """Return a fresh world."""
        self._count += 1
        return World(
            self._scratch / f"{self._count:04}", jobs_of(rate, time.time() + 8), self.program,
            self.postgres if is_postgres else None, is_on_disk, self.root, self.env,
        )  # fmt: skip

    def leave(self, world: World) -> None:
        """Leave nothing of a world."""
        world.close()
        shutil.rmtree(world.folder, ignore_errors=True)

    def run(self, plan: Round, settle_seconds: float = SETTLE_SECONDS) -> Outcome:
        """Run a round; the evidence of a fault is kept."""
        nemeses = [ALL[name]() for name in plan.nemeses]
        is_postgres = any(each.needs_postgres for each in nemeses) or (self.postgres is not None and self._count % 2 == 0)
        world = self.world(plan.rate, is_postgres, any(each.needs_disk for each in nemeses))
        try:
            _play(world, plan, nemeses)
            begin = time.monotonic()
            outcome = Outcome(plan, finish(world, settle_seconds), world.exits, time.monotonic() - begin)
            if outcome.verdict.faults or outcome.exits:
                outcome.evidence = self._keep(world, outcome)
        finally:
            self.leave(world)
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


def _play(world: World, plan: Round, nemeses: Sequence[Nemesis]) -> None:
    world.start()
    random = Random(f"{plan.seed} {plan.label}")
    steps = sorted((step for each in nemeses for step in each.plan(random, plan.seconds)), key=lambda step: step.at)
    _act(world, steps, plan.seconds)
    for each in nemeses:
        each.heal(world)
    world.note("all is healed")


def finish(world: World, settle_seconds: float) -> Verdict:
    """Wait until everything is in order, or should be; end in peace, and judge."""
    _settle(world, settle_seconds)
    world.stop()
    return judge(world.case, *world.read())


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


def _settle(world: World, seconds: float) -> None:
    """Return when everything is in order; what is not after so many seconds is a fault."""
    begin = time.monotonic()
    world.case.through = world.wall() + 1.0
    wait = 2.0
    while time.monotonic() - begin < seconds:
        give_up = time.monotonic() + wait
        while time.monotonic() < give_up:
            world.tend()
            time.sleep(TURN)
        with suppress(Exception):  # the history may not be there yet
            if not judge(world.case, *world.read()).faults:
                return
        wait = min(wait + 0.5, 4.0)


def labels(names: Sequence[str], with_pairs: bool, seed: int) -> list[tuple[str, ...]]:
    """Return who acts together: each alone (`one+other` is two), and then in pairs, in an order of chance."""
    pairs = list(combinations(names, 2)) if with_pairs else []
    Random(seed).shuffle(pairs)
    return [tuple(name.split("+")) for name in names] + pairs


def rounds(names: Sequence[str], with_pairs: bool, length: float, rate: float, seed: int) -> Iterator[Round]:
    """Yield rounds without end."""
    them = labels(names, with_pairs, seed)
    for number in count():
        yield Round(them[number % len(them)], length, rate, f"{seed}/{number}")
