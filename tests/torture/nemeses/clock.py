"""The clock is set."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.torture.nemeses.base import Nemesis, Step, moments
from tests.torture.world import World


class Clock(Nemesis):
    """Sets the daemon's clock forward and back."""

    name = "clock"

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Set it by a second, by some, or by half a minute."""
        shift = 0.0
        for at in moments(random, seconds, 4.0):
            shift += random.choice([-1.0, 1.0, -5.0, 5.0, -0.4, 30.0, -30.0])
            shift = max(-40.0, min(shift, 60.0))
            yield Step(at, f"the clock is {shift:+} s", lambda world, shift=shift: world.step_to(shift))

    def heal(self, world: World) -> None:
        """Set it right."""
        world.step_to(0.0)
