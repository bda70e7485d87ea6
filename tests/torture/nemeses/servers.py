"""The server of the history goes down, or says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.torture.nemeses.base import Nemesis, Step, moments
from tests.torture.world import World


class Postgres(Nemesis):
    """kill -9 and immediate stops of PostgreSQL."""

    name = "postgresql"
    needs_postgres = True

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Let it die, and start it again after a while."""
        for at in moments(random, seconds, 5.0):
            how, length = random.choice(["kill -9", "immediate stop"]), random.choice([0.0, 1.0, 4.0])
            yield Step(at, f"{how} of PostgreSQL", lambda world, how=how: world.stop_postgres(how == "kill -9"))
            yield Step(at + length, "PostgreSQL is started", lambda world: world.start_postgres())

    def heal(self, world: World) -> None:
        """Start it."""
        world.start_postgres()


class SilentPostgres(Nemesis):
    """A PostgreSQL that takes connections and answers nothing."""

    name = "silent"
    needs_postgres = True

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Freeze it for a while."""
        for at in moments(random, seconds, 6.0):
            length = random.choice([0.5, 3.0, 6.0])
            yield Step(at, "PostgreSQL is silent", lambda world: world.silence_postgres(True))
            yield Step(at + length, "PostgreSQL speaks", lambda world: world.silence_postgres(False))

    def heal(self, world: World) -> None:
        """Let it speak."""
        world.silence_postgres(False)
