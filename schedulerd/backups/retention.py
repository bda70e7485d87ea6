"""Which backups stay: counts by grandfather, father and son, and what no count ever takes away.

Pure. The order of backups is that of their `sequence` and never that of their dates: a clock that was wrong for a day must
not make yesterday's backup the newest one for ten years.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

_PERIODS: Mapping[str, Callable[[datetime], tuple[int, ...]]] = {
    "hourly": lambda at: (at.year, at.month, at.day, at.hour),
    "daily": lambda at: (at.year, at.month, at.day),
    "weekly": lambda at: tuple(at.isocalendar()[:2]),
    "monthly": lambda at: (at.year, at.month),
    "yearly": lambda at: (at.year,),
}
KEEP_PERIODS = ("last", *_PERIODS)
MOST_SUSPECTS = 3  # backups in doubt that are newer than the last good one: the newest of them stay to be looked at


@dataclass(frozen=True, slots=True)
class Kept:
    """What retention knows of a backup. `made_at` is on the clock by which days and months are told apart.

    `is_good`: whole as far as is known, and nothing odd about it. `is_proven`: it has been restored.
    """

    name: str
    sequence: int
    made_at: datetime
    is_good: bool = True
    is_proven: bool = False
    is_held: bool = False


def expired(backups: Iterable[Kept], keep: Mapping[str, int]) -> list[str]:
    """Return the names of the backups that may go, oldest first.

    `keep` says how many of the newest (`last`) and how many of the newest per hour, day, week, month and year stay; only
    good ones count, and each period is stood for by the last of it. When nothing is to be kept by any count, all stay.
    Whatever the counts: the last good one stays, the last that was proven, each that is held, and the newest.
    """
    newest_first = sorted(backups, key=lambda each: each.sequence, reverse=True)
    if not any(keep.values()):
        return []
    stay = _protected(newest_first) | _counted([each for each in newest_first if each.is_good], keep)
    return [each.name for each in reversed(newest_first) if each.name not in stay]


def _protected(newest_first: Sequence[Kept]) -> set[str]:
    good = [each for each in newest_first if each.is_good]
    last_good = good[0].sequence if good else -1
    suspects = [each for each in newest_first if not each.is_good and each.sequence > last_good]
    proven = [each for each in newest_first if each.is_proven and each.is_good]
    held = [each for each in newest_first if each.is_held]
    return {each.name for each in (*newest_first[:1], *good[:1], *proven[:1], *suspects[:MOST_SUSPECTS], *held)}


def _counted(newest_first: Sequence[Kept], keep: Mapping[str, int]) -> set[str]:
    stay = {each.name for each in newest_first[: keep.get("last", 0)]}
    for name, period in _PERIODS.items():
        seen: dict[tuple[int, ...], str] = {}
        for each in newest_first:
            seen.setdefault(period(each.made_at), each.name)
        stay.update(list(seen.values())[: keep.get(name, 0)])
    return stay
