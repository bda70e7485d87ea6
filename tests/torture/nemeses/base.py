"""What a nemesis is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from tests.torture.world import World


@dataclass(frozen=True)
class Step:
    """Something that is done `at` seconds after the begin of a round."""

    at: float
    words: str
    act: Callable[[World], None]


class Nemesis:
    """Does harm, and heals it in the end."""

    name: ClassVar[str]
    needs_disk: ClassVar[bool] = False  # a small one, that only root can mount
    needs_postgres: ClassVar[bool] = False

    def plan(self, random: Random, seconds: float) -> Iterator[Step]:
        """Yield what is to be done in a round of so many seconds."""
        raise NotImplementedError

    def heal(self, world: World) -> None:
        """Undo what is not undone yet."""


def moments(random: Random, seconds: float, every: float) -> Iterator[float]:
    """Yield moments of a round, `every` so many seconds or so."""
    at = random.uniform(0.2, every)
    while at < seconds:
        yield at
        at += random.uniform(0.4, 1.6) * every
