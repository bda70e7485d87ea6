"""Time zones as stretches of constant UTC offset, so that triggers can calculate with plain integers.

Inside a stretch, local time is UTC plus a constant; only at its borders do gaps and repeats happen. `zoneinfo` does not
tell where the borders are, so they are found by looking at it, once per zone and year.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

PROBE = 43_200  # seconds: no zone of the tz database has two transitions nearer to one another that cancel out
FIRST_YEAR, LAST_YEAR = 1900, 9998


class Stretch(NamedTuple):
    """From `start` until before `end` (Unix seconds), local time is UTC + `offset` seconds.

    A stretch never spans a new year (UTC), so neighbours may have equal offsets.
    """

    start: int
    end: int
    offset: int


def zone_named(name: str) -> ZoneInfo:
    """Return the IANA zone `name`. Raise ValueError when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"there is no time zone {name!r}") from error


def stretch_at(zone: str, second: int) -> Stretch:
    """Return the stretch of `zone` that holds the Unix time `second`."""
    year = _year_of(second)
    starts, stretches = _stretches(zone, year)
    return stretches[bisect_right(starts, second) - 1]


def _year_of(second: int) -> int:
    return datetime.fromtimestamp(second, UTC).year


@lru_cache(maxsize=4096)
def _stretches(name: str, year: int) -> tuple[list[int], list[Stretch]]:
    zone = ZoneInfo(name)
    first = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    last = int(datetime(year + 1, 1, 1, tzinfo=UTC).timestamp())
    stretches = []
    start, offset = first, _offset(zone, first)
    for probe in [*range(first + PROBE, last, PROBE), last - 1]:
        if _offset(zone, probe) != offset:
            border = _first_change(zone, max(start, probe - PROBE), probe)
            stretches.append(Stretch(start, border, offset))
            start, offset = border, _offset(zone, border)
    stretches.append(Stretch(start, last, offset))
    return [stretch.start for stretch in stretches], stretches


def _first_change(zone: ZoneInfo, before: int, after: int) -> int:
    offset = _offset(zone, before)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(zone, middle) == offset:
            before = middle
        else:
            after = middle
    return after


def _offset(zone: ZoneInfo, second: int) -> int:
    shift = datetime.fromtimestamp(second, zone).utcoffset()
    assert shift is not None  # noqa: S101 - a ZoneInfo always answers
    return shift.days * 86400 + shift.seconds
