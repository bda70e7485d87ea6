"""Makes a backup: copy, check, compress and encrypt, hash, add to the catalogue. Then removes those that have expired."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from ..core.faults import fault_point
from ..core.models import to_text
from . import folder, postgresql, redis, sqlite
from .catalogue import Catalogue
from .codec import check_wrapped, is_wrapped, suffix_of, wrap
from .entry import CatalogueEntry
from .manifest import Manifest, backup_owner_of, filename_of
from .retention import expired
from .source import HISTORY, BackupError, Order, SourceCopy, SourceType

BLOCK = 1024 * 1024
GROWTH = 1.1  # the expected ratio of the size of a backup to that of the last one
SOURCE_TYPES: Mapping[str, SourceType] = {  # by the `kind` of a manifest
    "postgresql": postgresql.DATABASE,
    "postgresql-globals": postgresql.GLOBALS,
    "sqlite": sqlite.SOURCE_TYPE,
    "redis": redis.SOURCE_TYPE,
    "folder": folder.SOURCE_TYPE,
}


@dataclass(frozen=True, slots=True)
class CreatedBackup:
    """A backup that was added to the catalogue, and the names of the expired ones that were removed."""

    manifest: Manifest
    removed: Sequence[str]


def create(order: Order, now: datetime) -> CreatedBackup:
    """Make a backup and add it to the catalogue. Raise BackupError; then no part of it remains."""
    owner = backup_owner_of(order)
    with Catalogue(order["directory"], is_created=True, may_be_theirs=order["source"] != HISTORY) as catalogue:
        catalogue.clear(owner)
        earlier = catalogue.of_job(order["job_id"], owner)
        check_space(order, expected_bytes(order, earlier))
        with catalogue.partial(order["job_id"], order["run_id"], owner) as scratch:
            manifest = _entered(catalogue, order, now, scratch, earlier)
        removed = remove_expired(catalogue, order) if manifest.is_good else []
    return CreatedBackup(manifest, removed)


def check_space(order: Order, needed: int) -> None:
    """Raise BackupError when the disk has less than `needed` and `min_free` bytes free. A full disk stops other programs."""
    space = os.statvfs(order["directory"])
    free = space.f_bavail * space.f_frsize
    if free < needed + order["min_free"]:
        raise BackupError(
            f"{order['directory']} has {free} bytes free: about {needed} are needed, and {order['min_free']} must remain "
            "free (min_free)"
        )


def expected_bytes(order: Order, earlier: Sequence[CatalogueEntry]) -> int:
    """Return the number of bytes that making a backup needs, by the last good one or else by the size of the source.

    While a backup is compressed or encrypted, both the content and the result are on the disk. The size of the source is an
    upper bound, so it is not used when no space must remain free.
    """
    last = next((each.manifest for each in earlier if each.is_good), None)
    if last is not None:
        return int(GROWTH * (last.content_size_bytes + (last.size_bytes if is_wrapped(order) else 0)))
    return _size_of_source(order) * (2 if is_wrapped(order) else 1) if order["min_free"] else 0


def _size_of_source(order: Order) -> int:
    try:
        return SOURCE_TYPES[order["kind"]].size(order)
    except BackupError as error:  # only this may be forbidden; the copy reports other errors
        sys.stderr.write(f"the size of the source is not known: {error}\n")
        return 0


def _entered(
    catalogue: Catalogue, order: Order, now: datetime, scratch: str, earlier: Sequence[CatalogueEntry]
) -> Manifest:  # fmt: skip
    source = SOURCE_TYPES[order["kind"]]
    content = os.path.join(scratch, "content")
    copied = source.copy(order, content)
    fault_point("backup_copied")
    source.check(order, content)
    content_size, content_digest = _finalized(content)
    file = _wrapped(order, content, content_digest, scratch)
    size, digest = _finalized(file) if file != content else (content_size, content_digest)
    manifest = Manifest(
        filename=filename_of(order["job_id"], order["source"], now, source.suffix + suffix_of(order)),
        created_at=to_text(now), size_bytes=size, sha256=digest, content_size_bytes=content_size,
        content_sha256=content_digest, alarms=tuple(alarms(order, content_size, earlier)),
        **_origin_fields(order, copied),
    )  # fmt: skip
    fault_point("backup_checked")
    return catalogue.enter(file, manifest)


def _origin_fields(order: Order, copied: SourceCopy) -> dict[str, Any]:
    """Return the fields of the manifest that describe the origin of a backup."""
    same: Mapping[str, Any] = {
        name: order[name] for name in ("job_id", "run_id", "source", "kind", "compress", "encrypt", "node", "daemon")
    }
    return {**same, "made_with": copied.made_with, "warnings": copied.warnings}


def _wrapped(order: Order, content: str, digest: str, scratch: str) -> str:
    """Return the path of the file of the backup: the content, or the content compressed and encrypted."""
    if not is_wrapped(order):
        return content
    file = os.path.join(scratch, "wrapped")
    wrap(order, content, file, scratch)
    if order["encrypt"] == "none":
        check_wrapped(file, order["compress"], digest)
    return file


def _finalized(path: str) -> tuple[int, str]:
    """Make a file private and durable. Return its size and its SHA-256, both as read back."""
    digest = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        os.fchmod(file.fileno(), 0o600)
        os.fsync(file.fileno())
        while block := file.read(BLOCK):
            digest.update(block)
        return file.tell(), digest.hexdigest()


def alarms(order: Order, size: int, earlier: Sequence[CatalogueEntry]) -> list[str]:
    """Return the implausible properties of a backup whose content has `size` bytes, compared with the `earlier` ones."""
    found = []
    if size < order["min_size"]:
        found.append(f"it has {size} bytes, fewer than min_size ({order['min_size']})")
    last = next((each.manifest for each in earlier if each.is_good), None)
    max_shrink = order["max_shrink"]
    if last is not None and max_shrink < 100 and size * 100 < last.content_size_bytes * (100 - max_shrink):
        found.append(
            f"it has {size} bytes, the last good one had {last.content_size_bytes}: it shrank by more than {max_shrink} %"
        )
    return found


def remove_expired(catalogue: Catalogue, order: Order) -> list[str]:
    """Remove the backups of a job that `keep` does not keep, and forget the missing ones among them. Return the names."""
    zone = ZoneInfo(order["timezone"])
    own = {entry.manifest.filename: entry for entry in catalogue.of_job(order["job_id"], backup_owner_of(order))}
    names = expired([entry.retention_item(zone) for entry in own.values()], order["keep"])
    return [name for name in names if (catalogue.forget if own[name].is_missing else catalogue.remove_unless_held)(name)]
