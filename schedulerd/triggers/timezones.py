"""Time zones as periods of constant UTC offset, so that triggers calculate with integers.

Within a period, local time is UTC plus a constant; gaps and repeats happen only between periods. `zoneinfo` does not
expose the transitions, so they are found by probing it, once for each zone and year.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..core.models import EPOCH, MICROSECOND

PROBE = 43_200  # seconds: in the tz database, no two transitions that cancel out are nearer to each other
FIRST_YEAR, LAST_YEAR = 2, 9997  # there are no times outside these years
DAY = 86_400
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class ZonePeriod(NamedTuple):
    """From `start` to before `end` (Unix seconds), local time is UTC + `offset` seconds; earlier, it was UTC + `before`.

    A period never spans a new year (UTC), so neighbours may have equal offsets. When `before` is smaller, the local times
    from start + before to before start + offset do not exist (a gap). When it is larger, those from start + offset to
    before start + before occur a second time (a repeat).
    """

    start: int
    end: int
    offset: int
    before: int


def zone_named(name: str) -> ZoneInfo:
    """Return the IANA time zone `name`. Raise ValueError when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"there is no time zone {name!r}") from error


def period_at(zone: str, second: int) -> ZonePeriod:
    """Return the period of `zone` that contains the Unix time `second`."""
    starts, periods = _periods(zone, date.fromordinal(second // DAY + EPOCH_ORDINAL).year)
    return periods[bisect_right(starts, second) - 1]


def to_instant(zone: str, local: datetime, *, is_end: bool = False) -> datetime:
    """Return the instant (UTC) of a naive local time.

    For a time in a gap it is the end of the gap. For a time that occurs twice it is the first, with `is_end` the second.
    """
    micros = (local.replace(tzinfo=None) - EPOCH.replace(tzinfo=None)) // MICROSECOND
    second, rest = divmod(micros, 1_000_000)
    near = period_at(zone, second - DAY)
    while True:
        if second < near.start + near.offset:
            return EPOCH + timedelta(seconds=near.start)  # in the gap before it
        if second < near.end + near.offset:
            following = period_at(zone, near.end)
            if not is_end or second < following.start + following.offset:
                return EPOCH + timedelta(seconds=second - near.offset, microseconds=rest)
        near = period_at(zone, near.end)


def wall(local_second: int) -> datetime:
    """Return a local second (Unix time plus offset) as a naive datetime."""
    return datetime.fromtimestamp(local_second, UTC).replace(tzinfo=None)


@lru_cache(maxsize=4096)
def _periods(name: str, year: int) -> tuple[list[int], list[ZonePeriod]]:
    zone = ZoneInfo(name)
    first = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    last = int(datetime(year + 1, 1, 1, tzinfo=UTC).timestamp())
    periods = []
    before, start, offset = _offset(zone, first - 1), first, _offset(zone, first)
    for probe in [*range(first + PROBE, last, PROBE), last - 1]:
        if _offset(zone, probe) != offset:
            border = _first_change(zone, max(start, probe - PROBE), probe)
            periods.append(ZonePeriod(start, border, offset, before))
            before, start, offset = offset, border, _offset(zone, border)
    periods.append(ZonePeriod(start, last, offset, before))
    return [period.start for period in periods], periods


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
    assert shift is not None  # noqa: S101 - a ZoneInfo has an offset for every instant
    return shift.days * DAY + shift.seconds
