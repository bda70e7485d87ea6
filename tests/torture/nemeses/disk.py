"""Files that cannot be written or opened."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from random import Random
from typing import ClassVar

from tests.torture.nemeses.base import Nemesis, Step, moments
from tests.torture.world import World

WRITING = "write,sync,folder,rename,allocate"
PLACES = {
    "the history": ["history.db"],
    "the outage journal": ["outage.journal"],
    "the keepers' journals": ["/keeper/"],
    "history and outage journal": ["history.db", "outage.journal"],
    "everything": ["/var/"],
}


class IoErrors(Nemesis):
    """Errors of the disk, in what the daemon and the keepers write."""

    name = "eio"

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Let writes to some files fail for a while."""
        for at in moments(random, seconds, 5.0):
            words, length = random.choice(list(PLACES)), random.choice([0.2, 1.0, 4.0])
            calls = random.choice([WRITING, "sync", "write", f"open,{WRITING}"])
            number = random.choice([errno.EIO, errno.ENOSPC, errno.EROFS])
            yield Step(
                at, f"errors of {words}: {calls}, {errno.errorcode[number]}",
                lambda world, words=words, calls=calls, number=number: _fail(world, words, calls, number),
            )  # fmt: skip
            yield Step(at + length, "no errors", _heal)

    def heal(self, world: World) -> None:
        """Let nothing fail."""
        _heal(world)


def _fail(world: World, words: str, calls: str, number: int) -> None:
    world.io.fail(calls, *PLACES[words], number=number)
    if "keeper" in words or words == "everything":
        world.unwritten()


def _heal(world: World) -> None:
    world.io.heal()
    world.written()


class Full(Nemesis):
    """A disk without room."""

    name = "full"
    needs_disk = True

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Fill it for a while."""
        for at in moments(random, seconds, 6.0):
            length = random.choice([1.0, 4.0, 8.0])
            yield Step(at, "the disk is full", _fill)
            yield Step(at + length, "the disk has room", _free)

    def heal(self, world: World) -> None:
        """Give the room back."""
        _free(world)


def _fill(world: World) -> None:
    world.fill()
    world.unwritten()


def _free(world: World) -> None:
    world.free()
    world.written()


class Descriptors(Nemesis):
    """A limit of descriptors that is nearly reached."""

    name = "descriptors"

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Leave a few, or none, for a while."""
        for at in moments(random, seconds, 5.0):
            spare, length = random.choice([0, 1, 3, 8]), random.choice([0.5, 2.0, 5.0])
            yield Step(at, f"{spare} descriptors are left", lambda world, spare=spare: world.limit(spare))
            yield Step(at + length, "descriptors are there", lambda world: world.unlimit())

    def heal(self, world: World) -> None:
        """Give them back."""
        world.unlimit()


class HistoryErrors(Nemesis):
    """A history that cannot be written, while the outage journal can."""

    name = "history"
    places: ClassVar[list[str]] = ["history.db"]

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Let it fail for some seconds."""
        for at in moments(random, seconds, 4.0):
            yield Step(at, f"errors of {self.places}", lambda world: world.io.fail(WRITING, *self.places))
            yield Step(at + 2.0, "no errors", _heal)

    def heal(self, world: World) -> None:
        """Let nothing fail."""
        _heal(world)


class BothLogs(HistoryErrors):
    """Neither the history nor the outage journal can be written."""

    name = "both-logs"
    places: ClassVar[list[str]] = ["history.db", "outage.journal"]


class Shortage(Nemesis):
    """Keepers die, and those that take their place find no descriptor to look at processes with."""

    name = "shortage"

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Kill keepers while /proc cannot be opened."""
        for at in moments(random, seconds, 4.0):
            yield Step(at, "no descriptors for /proc", lambda world: world.io.fail("open", "/stat", number=errno.EMFILE))
            yield Step(at + 0.1, "kill -9 of keepers", lambda world: world.kill_keepers())
            yield Step(at + 2.5, "descriptors are there", lambda world: world.io.heal())

    def heal(self, world: World) -> None:
        """Let nothing fail."""
        world.io.heal()
