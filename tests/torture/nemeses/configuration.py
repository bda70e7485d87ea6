"""The configuration is changed, and broken."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from random import Random

from tests.torture.nemeses.base import Nemesis, Step, moments
from tests.torture.world import World

BROKEN = ["jobs: [", "jobs: {a: {every: 1s}}\n", "\0", "jobs: {a: {cron: '61 * * * *', shell: 'true'}}\n"]


class Reload(Nemesis):
    """SIGHUPs, of which some find a file with mistakes."""

    name = "reload"

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Change it, break it for a moment, and send one SIGHUP or many."""
        for number, at in enumerate(moments(random, seconds, 1.0)):
            if random.random() < 0.4:
                text = random.choice(BROKEN)
                yield Step(at, "a broken configuration", lambda world, text=text: _reload(world, text, 1))
                yield Step(at + random.uniform(0.05, 1.0), "a good one", lambda world: _reload(world, world.config(), 1))
            else:
                times = random.choice([1, 1, 20])
                yield Step(
                    at, f"another configuration, {times} SIGHUPs",
                    lambda world, number=number, times=times: _reload(world, world.config(f"the {number}th"), times),
                )  # fmt: skip

    def heal(self, world: World) -> None:
        """Put the good one back."""
        _reload(world, world.config(), 1)


def _reload(world: World, config: object, times: int) -> None:
    world.write(config)  # type: ignore[arg-type]
    for _ in range(times):
        if world.is_ready and world.pid is not None:  # before that a SIGHUP ends it
            world.daemon.signal(signal.SIGHUP)
