"""Finds anomalies: how a day of a job differs from the days before it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.stats import percentile
from ..core.units import format_duration

LEAST_DAYS = 7  # before a day, for a comparison
SLOWER = 2.0  # times the median
FASTER = 0.25
NOTICED_SECONDS = 1.0  # smaller differences are ignored


@dataclass(frozen=True, slots=True)
class DayFigures:
    """A day of a job: the number of successful runs, their records, and the median of their durations in seconds."""

    successes: int
    records: int
    duration_p50: float | None


def unusual(before: Sequence[DayFigures], day: DayFigures) -> list[str]:
    """Return the anomalies of a day in words: much slower, much faster, or no records although each day before had some.

    Only days with a successful run count. A day must also be slower or faster than each of the days before it, since the
    durations of some jobs vary widely.
    """
    known = [each for each in before if each.successes]
    if len(known) < LEAST_DAYS or not day.successes:
        return []
    found = _pace([each.duration_p50 for each in known if each.duration_p50 is not None], day.duration_p50)
    if day.records == 0 and all(each.records for each in known):
        found.append(f"no records, although each of the {len(known)} days before had some")
    return found


def _pace(known: list[float], took: float | None) -> list[str]:
    usual = percentile(known, 50)
    if usual is None or took is None or abs(took - usual) < NOTICED_SECONDS:
        return []
    compared = f"it took {format_duration(took)}, usually {format_duration(usual)}"
    if took > SLOWER * usual and took > max(known):
        return [f"much slower: {compared}"]
    if took < FASTER * usual and took < min(known):
        return [f"much faster: {compared}"]
    return []
