"""When jobs are due, by arithmetic that has nothing of schedulerd's triggers. Times are whole seconds since 1970 UTC."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Rule(Protocol):
    """The times of a job."""

    def times(self, first: float, last: float) -> Sequence[int]:
        """Return those from `first` to `last`, both included."""
        ...

    def knows(self, at: float) -> bool:
        """Return whether a time is one of them."""
        ...


@dataclass(frozen=True)
class Steps:
    """Each second that `step` divides; of a minute, as cron and systemd count, where 60 is a multiple of it."""

    step: int

    def times(self, first: float, last: float) -> Sequence[int]:
        """Return those from `first` to `last`, both included."""
        return range(-int(-first // self.step) * self.step, int(last) + 1, self.step)

    def knows(self, at: float) -> bool:
        """Return whether a time is one of them."""
        return at == int(at) and int(at) % self.step == 0


@dataclass(frozen=True)
class Once:
    """The instants themselves."""

    instants: tuple[int, ...]

    def times(self, first: float, last: float) -> Sequence[int]:
        """Return those from `first` to `last`, both included."""
        return [at for at in self.instants if first <= at <= last]

    def knows(self, at: float) -> bool:
        """Return whether a time is one of them."""
        return at in self.instants
