"""Spans of time, sorted so that the one that covers a moment is found by bisection; and calendars, which consist of them."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from ..core.models import EPOCH

_SECOND = timedelta(seconds=1)
_NAIVE_EPOCH = EPOCH.replace(tzinfo=None)


@dataclass(frozen=True, slots=True)
class Span:
    """A span of a calendar file, from `first` to before `last`, in whole seconds.

    Naive times are on the wall clock of the job's zone; aware times are UTC.
    """

    first: datetime
    last: datetime
    name: str = ""


class Covering(NamedTuple):
    """The span that covers a second."""

    name: str
    until: int  # the end of the last of the spans that adjoin it


@dataclass(frozen=True, slots=True)
class Coverage:
    """Spans in seconds, sorted and without overlaps. `runs` are the ends of the series of adjoining spans."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    runs: tuple[int, ...]
    names: tuple[str, ...]

    def find(self, low: int, high: int) -> Covering | None:
        """Return the span that begins by `high` and ends later than `low`, or None."""
        index = bisect_right(self.starts, high) - 1
        if index < 0 or self.ends[index] <= low:
            return None
        return Covering(self.names[index], self.runs[index])

    def pieces(self) -> Iterable[tuple[int, int, str]]:
        """Return begin, end and name of each span."""
        return zip(self.starts, self.ends, self.names, strict=True)


def coverage_of(pieces: Iterable[tuple[int, int, str]]) -> Coverage:
    """Return spans, given as begin, end and name, as a Coverage; where spans overlap, the earlier one stays."""
    kept: list[tuple[int, int, str]] = []
    for start, end, name in sorted(pieces, key=lambda piece: piece[0]):
        begin = max(start, kept[-1][1]) if kept else start
        if begin < end:
            kept.append((begin, end, name))
    starts, ends = tuple(piece[0] for piece in kept), tuple(piece[1] for piece in kept)
    runs = list(ends)
    for index in range(len(kept) - 2, -1, -1):
        if starts[index + 1] == ends[index]:
            runs[index] = runs[index + 1]
    return Coverage(starts, ends, tuple(runs), tuple(piece[2] for piece in kept))


@dataclass(frozen=True, slots=True)
class Calendar:
    """The spans of a calendar file `name`, sorted; equal to another with the same name and spans."""

    name: str
    spans: tuple[Span, ...] = field(compare=False)
    digest: str = field(init=False, repr=False)  # replaces the spans in comparisons, which a reload makes often
    local: Coverage = field(init=False, repr=False, compare=False)
    universal: Coverage = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sort the spans and prepare the search."""
        spans = tuple(sorted(self.spans, key=lambda span: (span.first.replace(tzinfo=None), span.last.replace(tzinfo=None))))
        listing = "\n".join(f"{span.first.isoformat()} {span.last.isoformat()} {span.name!r}" for span in spans)
        for name, value in (
            ("spans", spans),
            ("digest", hashlib.blake2b(listing.encode(errors="backslashreplace"), digest_size=16).hexdigest()),
            ("local", coverage_of(piece_of(span) for span in spans if span.first.tzinfo is None)),
            ("universal", coverage_of(piece_of(span) for span in spans if span.first.tzinfo is not None)),
        ):
            object.__setattr__(self, name, value)


def piece_of(span: Span) -> tuple[int, int, str]:
    """Return a span as begin, end and name, in seconds since 1970 of its wall clock or of UTC."""
    first, last = ((bound.replace(tzinfo=None) - _NAIVE_EPOCH) // _SECOND for bound in (span.first, span.last))
    return first, last, span.name
