"""The measurements of a burst, and their output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Burst:
    """The measurements of one burst.

    `late` are milliseconds, ascending; `span` is seconds from the first start to the last end; `own` and `children` are
    CPU seconds.
    """

    late: list[float]
    span: float
    own: float | None
    children: float

    def cells(self, name: str) -> list[str]:
        """Return its row of the table."""
        count = max(1, len(self.late))
        own = "?" if self.own is None else f"{self.own / count * 1000:.3f}"
        total = "?" if self.own is None else f"{(self.own + self.children) / count * 1000:.3f}"
        p50, p99, last = (f"{percentile(self.late, share):.1f}" for share in (50, 99, 100))
        return [name, p50, p99, last, f"{self.span:.3f}", f"{count / self.span:.0f}", own, total]


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile, NaN without values."""
    if not ascending:
        return math.nan
    return ascending[max(0, math.ceil(share / 100 * len(ascending)) - 1)]


def say(text: str = "") -> None:
    """Print a line, and flush it."""
    print(text, flush=True)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, with the first column aligned left and the others right."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, *rows):
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        say("  ".join([first, *others]).rstrip())
