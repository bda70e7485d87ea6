"""Processes that die or stand still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from tests.torture.nemeses.base import Nemesis, Step, moments
from tests.torture.world import World


class Calm(Nemesis):
    """Does nothing."""

    name = "none"

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Yield nothing."""
        yield from ()


class Kill(Nemesis):
    """kill -9 of the daemon."""

    name = "kill"

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Kill it every few seconds; it is away for a moment, or for some seconds."""
        for at in moments(random, seconds, 3.0):
            down = random.choice([0.0, 0.3, 1.0, 3.0])
            yield Step(at, f"kill -9 of the daemon, for {down} s", lambda world, down=down: world.kill_daemon(down))


class Keepers(Nemesis):
    """kill -9 of keepers."""

    name = "keeper"

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Kill one, or all."""
        for at in moments(random, seconds, 2.0):
            which = random.choice([slice(None), slice(0, 1), slice(1, 2)])
            yield Step(at, f"kill -9 of keepers {which}", lambda world, which=which: world.kill_keepers(which))


class Restart(Nemesis):
    """SIGTERM, as an upgrade would."""

    name = "restart"

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Restart it."""
        for at in moments(random, seconds, 5.0):
            yield Step(at, "SIGTERM", lambda world: world.restart_daemon())


class Reboot(Nemesis):
    """The host goes down."""

    name = "reboot"

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Let everything die at once."""
        for at in moments(random, seconds, 5.0):
            down = random.choice([0.0, 1.0, 4.0])
            yield Step(at, f"the host goes down, for {down} s", lambda world, down=down: world.crash(down))


class Freeze(Nemesis):
    """SIGSTOP and SIGCONT of the daemon, of keepers, or of all."""

    name = "freeze"

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Freeze some for a while."""
        for at in moments(random, seconds, 5.0):
            words = random.choice(["the daemon", "the keepers", "a keeper", "all"])
            length = random.choice([0.3, 1.5, 4.0, 8.0])
            yield Step(at, f"SIGSTOP of {words}", lambda world, words=words: world.freeze(_whom(words)(world)))
            yield Step(at + length, "SIGCONT", _thaw)

    def heal(self, world: World) -> None:
        """Let all go on."""
        _thaw(world)


def _whom(words: str) -> Callable[[World], list[int]]:
    return {
        "the daemon": lambda world: [world.pid] if world.pid is not None else [],
        "the keepers": lambda world: world.keepers(),
        "a keeper": lambda world: world.keepers()[:1],
        "all": lambda world: world.keepers() + ([world.pid] if world.pid is not None else []),
    }[words]


def _thaw(world: World) -> None:
    world.thaw()
