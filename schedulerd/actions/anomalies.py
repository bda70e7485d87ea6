"""What is unusual about a day of a job, beside the days before it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.stats import percentile
from ..core.units import format_duration

LEAST_DAYS = 7  # with fewer days before, nothing is usual yet
SLOWER = 2.0  # times the usual
FASTER = 0.25
NOTICED_SECONDS = 1.0  # smaller differences are nobody's concern


@dataclass(frozen=True, slots=True)
class Figures:
    """A day of a job: how many runs were a success, their records, and the median of their durations."""

    successes: int
    records: int
    duration_p50: float | None


def unusual(before: Sequence[Figures], day: Figures) -> list[str]:
    """Return what is unusual about a day, in words: much slower, much faster, or without the records that there always were.

    Only days with a success count. A day is slower or faster only when it is so than each of those before, too: what
    varies much as a rule is no news.
    """
    known = [each for each in before if each.successes]
    if len(known) < LEAST_DAYS or not day.successes:
        return []
    found = _pace([each.duration_p50 for each in known if each.duration_p50 is not None], day.duration_p50)
    if day.records == 0 and all(each.records for each in known):
        found.append(f"it has no records, and had some on each of {len(known)} days before")
    return found


def _pace(known: list[float], took: float | None) -> list[str]:
    usual = percentile(known, 50)
    if usual is None or took is None or abs(took - usual) < NOTICED_SECONDS:
        return []
    told = f"it took {format_duration(took)}, usually {format_duration(usual)}"
    if took > SLOWER * usual and took > max(known):
        return [f"much slower: {told}"]
    if took < FASTER * usual and took < min(known):
        return [f"much faster: {told}"]
    return []
