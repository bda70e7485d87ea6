"""The rules by which backups expire: counts for each period, and backups that never expire. Pure.

The order of backups is that of their `sequence`, not that of their dates. Otherwise, a backup that was made while the clock
was ahead would stay the newest one.
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
MOST_SUSPECTS = 3  # backups that are newer than the last good one and not good: the newest of them are kept


@dataclass(frozen=True, slots=True)
class RetentionItem:
    """The properties of a backup that the rules need. `made_at` is in the time zone whose days and months count.

    `is_good`: no check has failed. `is_proven`: a drill has restored it. `is_held`: it is on hold.
    """

    name: str
    sequence: int
    made_at: datetime
    is_good: bool = True
    is_proven: bool = False
    is_held: bool = False


def expired(backups: Iterable[RetentionItem], keep: Mapping[str, int]) -> list[str]:
    """Return the names of the backups that have expired, oldest first.

    `keep` has the number of the newest backups (`last`), and the numbers of hours, days, weeks, months and years of which
    the last backup is kept. Only good ones count. Without any count, no backup expires. These never expire: the newest
    backup, the last good one, the last one that was proven, and those on hold.
    """
    newest_first = sorted(backups, key=lambda each: each.sequence, reverse=True)
    if not any(keep.values()):
        return []
    stay = _protected(newest_first) | _counted([each for each in newest_first if each.is_good], keep)
    return [each.name for each in reversed(newest_first) if each.name not in stay]


def _protected(newest_first: Sequence[RetentionItem]) -> set[str]:
    good = [each for each in newest_first if each.is_good]
    last_good = good[0].sequence if good else -1
    suspects = [each for each in newest_first if not each.is_good and each.sequence > last_good]
    proven = [each for each in newest_first if each.is_proven and each.is_good]
    held = [each for each in newest_first if each.is_held]
    return {each.name for each in (*newest_first[:1], *good[:1], *proven[:1], *suspects[:MOST_SUSPECTS], *held)}


def _counted(newest_first: Sequence[RetentionItem], keep: Mapping[str, int]) -> set[str]:
    stay = {each.name for each in newest_first[: keep.get("last", 0)]}
    for name, period in _PERIODS.items():
        seen: dict[tuple[int, ...], str] = {}
        for each in newest_first:
            seen.setdefault(period(each.made_at), each.name)
        stay.update(list(seen.values())[: keep.get(name, 0)])
    return stay
