"""Find which of many secrets occur in data, with few searches: one key alone has hundreds of forms. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .forms import SHORTEST_MASKED

SHORT = 256  # bytes: the length of most lines and passwords in any form
SHORTEST_ANCHOR = 4  # bytes: shorter texts occur in most data

# What separates the letters and digits that all forms of a secret share, see `secrets/forms.py`.
_ESCAPES = re.compile(rb"%[0-9A-Fa-f]{2}|\\u[0-9a-f]{4}|\\.|&#?[0-9a-z]+;|[^A-Za-z0-9_.-]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Grid:
    """A sampling of data: each `step`-th word of `size` bytes. `cost` is its cost in searches."""

    form: Literal["I", "Q"]
    size: int
    step: int
    cost: int

    @property
    def shortest(self) -> int:
        """Return the length from which on a text contains a sampled word at any offset."""
        return self.size * (self.step + 1) - 1

    def words_of(self, data: bytes) -> Iterable[int]:
        """Return the sampled words."""
        whole = len(data) - len(data) % self.size
        return memoryview(data)[:whole].cast(self.form)[:: self.step]


GRIDS = (Grid("Q", 8, 7, 3), Grid("Q", 8, 3, 7), Grid("Q", 8, 1, 19), Grid("I", 4, 1, 33))


def _cheapest(anchors: Sequence[bytes]) -> Grid | None:
    """Return the cheapest grid to find anchors by, None when it is cheaper to search for each."""
    costs = {grid: grid.cost + sum(len(anchor) < grid.shortest for anchor in anchors) for grid in GRIDS}
    best = min(costs, key=costs.__getitem__)
    return best if costs[best] < len(anchors) else None


class Index:
    """Finds which of many secrets may occur in data, with few searches.

    All forms of a secret share the letters and digits between their escapes; only the longest such piece, the anchor, is
    searched. Of many anchors (lines of a key), long ones contain a whole word of 8 (or 4) bytes at an offset that is a
    multiple of some number, so the words of the data at such offsets identify them.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._anchored = _anchored(secrets)
        grid = _cheapest(list(self._anchored))
        self._grid = grid
        self._searched = [anchor for anchor in self._anchored if grid is None or len(anchor) < grid.shortest]
        self._by_word = _by_word([anchor for anchor in self._anchored if len(anchor) >= grid.shortest], grid) if grid else {}
        self._long = [secret for secret in secrets if len(secret) > SHORT]
        self._first_bytes = {secret[:length] for secret in secrets for length in range(1, min(SHORTEST_MASKED, len(secret)))}
        self._by_head: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for secret in secrets:
            if len(secret) <= SHORT:
                self._by_head[secret[:SHORTEST_MASKED]].append(secret)

    def found_in(self, data: bytes) -> list[bytes]:
        """Return the secrets that may be in `data`: all that are, and few others."""
        anchors = set(self._searched)
        if self._grid is not None:
            for word in self._by_word.keys() & self._grid.words_of(data):
                anchors.update(self._by_word[word])
        return [secret for anchor in anchors if anchor in data for secret in self._anchored[anchor]]

    def beginning(self, data: bytes) -> int:
        """Return the length of the longest end of `data` that is the beginning of a secret."""
        return max(beginning_in(data, self._long), self._short_beginning(data))

    def _short_beginning(self, data: bytes) -> int:
        for at in range(max(0, len(data) - SHORT + 1), len(data) - SHORTEST_MASKED + 1):
            for secret in self._by_head.get(data[at : at + SHORTEST_MASKED], ()):
                if len(secret) > len(data) - at and secret.startswith(data[at:]):
                    return len(data) - at
        lengths = range(min(SHORTEST_MASKED - 1, len(data)), 0, -1)
        return next((length for length in lengths if data[-length:] in self._first_bytes), 0)


def _anchored(secrets: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    """Return the secrets by their anchor: where the anchor does not occur, none of them does."""
    found: dict[bytes, list[bytes]] = {}
    last = None
    for anchor, secret in sorted((_anchor_of(secret), secret) for secret in secrets):
        if last is None or not anchor.startswith(last):
            last = anchor
        found.setdefault(last, []).append(secret)
    return found


def _anchor_of(secret: bytes) -> bytes:
    longest = max(_ESCAPES.split(secret), key=len)
    return longest if len(longest) >= SHORTEST_ANCHOR else secret


def _by_word(anchors: Iterable[bytes], grid: Grid) -> dict[int, list[bytes]]:
    """Return the anchors by those of their words of which at least one is sampled."""
    words: defaultdict[int, list[bytes]] = defaultdict(list)
    for anchor in anchors:
        for at in range(grid.size * grid.step):
            words[memoryview(anchor[at : at + grid.size]).cast(grid.form)[0]].append(anchor)
    return words


def beginning_in(data: bytes, secrets: Iterable[bytes]) -> int:
    """Return the length of the longest end of `data` that is the beginning of a secret."""
    longest = 0
    for secret in secrets:
        head = secret[:SHORTEST_MASKED]
        at = data.find(head, max(0, len(data) - len(secret) + 1))
        while 0 <= at < len(data) - longest:
            if secret.startswith(data[at:]):
                longest = len(data) - at
            at = data.find(head, at + 1)
        for length in range(min(SHORTEST_MASKED, len(secret), len(data) + 1) - 1, longest, -1):
            longest = length if data.endswith(secret[:length]) else longest
    return longest
