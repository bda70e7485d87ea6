"""A backup of the catalogue: what its manifest says, and what its file is now. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from .manifest import Maker, Manifest, instant
from .retention import Kept


@dataclass(frozen=True, slots=True)
class Entry:
    """A backup; `size_bytes` is what the file has now, 0 when it `is_missing`.

    `alien` says why the file cannot be taken for ours any more, though it is there: it is neither opened nor deleted.
    """

    manifest: Manifest
    path: str
    size_bytes: int
    is_missing: bool = False
    alien: str | None = None

    @property
    def is_whole(self) -> bool:
        """Return whether the file is as long as it was."""
        return not self.is_missing and self.size_bytes == self.manifest.size_bytes

    @property
    def is_good(self) -> bool:
        """Return whether it counts."""
        return self.is_whole and self.alien is None and self.manifest.is_good

    @property
    def doubts(self) -> list[str]:
        """Return why it is not good; nothing when it is."""
        if self.is_missing:
            return ["the file is missing"]
        cut = [] if self.is_whole else [f"the file has {self.size_bytes} bytes, and had {self.manifest.size_bytes}"]
        return [*cut, *filter(None, [self.alien]), *self.manifest.doubts]

    def kept(self, zone: ZoneInfo) -> Kept:
        """Return what retention needs to know of it, its time on the clock of `zone`."""
        one = self.manifest
        made_at = instant(one.created_at).astimezone(zone)
        return Kept(one.filename, one.sequence, made_at, self.is_good, one.is_proven, one.hold is not None)


def newest_first(entries: Iterable[Entry]) -> list[Entry]:
    """Return backups, of several jobs, too, the newest first: of each job in the order in which they were made.

    Jobs are compared by dates, where one that is later than that of a newer backup counts as that: the clock was ahead.
    """
    ages = []
    made: dict[tuple[str, Maker], datetime] = {}
    for entry in sorted(entries, key=lambda each: each.manifest.sequence, reverse=True):
        one = entry.manifest
        key, at = (one.job_id, one.maker), instant(one.created_at)
        made[key] = min(at, made.get(key, at))
        ages.append((made[key], one.sequence, entry))
    return [entry for *_, entry in sorted(ages, key=lambda each: each[:2], reverse=True)]
