"""A backup in a catalogue: its manifest and the current state of its file. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from .manifest import BackupOwner, Manifest, instant
from .retention import RetentionItem


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A backup. `size_bytes` is the current size of its file, 0 when the file `is_missing`.

    `alien` is the reason why the file is not the original one, for example that another user owns it. Such a file is neither
    opened nor deleted.
    """

    manifest: Manifest
    path: str
    size_bytes: int
    is_missing: bool = False
    alien: str | None = None

    @property
    def is_whole(self) -> bool:
        """Return whether the file has its original size."""
        return not self.is_missing and self.size_bytes == self.manifest.size_bytes

    @property
    def is_good(self) -> bool:
        """Return whether the backup counts as a good one."""
        return self.is_whole and self.alien is None and self.manifest.is_good

    @property
    def doubts(self) -> list[str]:
        """Return the reasons why the backup is not good."""
        if self.is_missing:
            return ["the file is missing"]
        cut = [] if self.is_whole else [f"the file has {self.size_bytes} bytes, and had {self.manifest.size_bytes}"]
        return [*cut, *filter(None, [self.alien]), *self.manifest.doubts]

    def retention_item(self, zone: ZoneInfo) -> RetentionItem:
        """Return what the rules of retention need, with the time in `zone`."""
        one = self.manifest
        made_at = instant(one.created_at).astimezone(zone)
        return RetentionItem(one.filename, one.sequence, made_at, self.is_good, one.is_proven, one.hold is not None)


def newest_first(entries: Iterable[CatalogueEntry]) -> list[CatalogueEntry]:
    """Return backups, newest first. Those of one job have the order of their sequences.

    Backups of different jobs are compared by their dates. A date later than that of a newer backup of the same job is
    wrong, since the clock was ahead: the date of the newer one is used.
    """
    ages = []
    made: dict[tuple[str, BackupOwner], datetime] = {}
    for entry in sorted(entries, key=lambda each: each.manifest.sequence, reverse=True):
        one = entry.manifest
        key, at = (one.job_id, one.owner), instant(one.created_at)
        made[key] = min(at, made.get(key, at))
        ages.append((made[key], one.sequence, entry))
    return [entry for *_, entry in sorted(ages, key=lambda each: each[:2], reverse=True)]
