"""Make one backup: copy, check, wrap, fsync, hash, enter into the catalogue; then let old ones go."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from ..core.faults import fault_point
from ..core.models import to_text
from .catalogue import Catalogue
from .codec import check_wrapped, is_wrapped, suffix_of, wrap
from .entry import Entry
from .manifest import Manifest, filename_of, maker_of
from .retention import expired
from .room import check_room, expected_bytes
from .source import HISTORY, Copied, Order
from .sources import KINDS

BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that is in the catalogue, and the names of those that went for it."""

    manifest: Manifest
    gone: Sequence[str]


def make(order: Order, now: datetime) -> Made:
    """Make a backup and enter it. Raise BackupError; then nothing of it is left."""
    with Catalogue(order["directory"], is_made=True, may_be_theirs=order["source"] != HISTORY) as catalogue:
        catalogue.clear(maker_of(order))
        earlier = catalogue.of_job(order["job_id"], maker_of(order))
        check_room(order, expected_bytes(order, earlier))
        with catalogue.partial(order["job_id"], order["run_id"], maker_of(order)) as scratch:
            manifest = _entered(catalogue, order, now, scratch, earlier)
        gone = let_go(catalogue, order) if manifest.is_good else []
    return Made(manifest, gone)


def _entered(catalogue: Catalogue, order: Order, now: datetime, scratch: str, earlier: Sequence[Entry]) -> Manifest:
    kind = KINDS[order["kind"]]
    content = os.path.join(scratch, "content")
    copied = kind.copy(order, content)
    fault_point("backup_copied")
    kind.check(order, content)
    content_size, content_digest = _settled(content)
    file = _wrapped(order, content, content_digest, scratch)
    size, digest = _settled(file) if file != content else (content_size, content_digest)
    manifest = Manifest(
        filename=filename_of(order["job_id"], order["source"], now, kind.suffix + suffix_of(order)),
        created_at=to_text(now), size_bytes=size, sha256=digest, content_size_bytes=content_size,
        content_sha256=content_digest, alarms=tuple(alarms(order, content_size, earlier)), **_told(order, copied),
    )  # fmt: skip
    fault_point("backup_checked")
    return catalogue.enter(file, manifest)


def _told(order: Order, copied: Copied) -> dict[str, Any]:
    same: Mapping[str, Any] = {
        name: order[name] for name in ("job_id", "run_id", "source", "kind", "compress", "encrypt", "node", "daemon")
    }
    return {**same, "made_with": copied.made_with, "warnings": copied.warnings}


def _wrapped(order: Order, content: str, digest: str, scratch: str) -> str:
    """Return the path of the file that is kept: the content itself, or it compressed and encrypted."""
    if not is_wrapped(order):
        return content
    file = os.path.join(scratch, "wrapped")
    wrap(order, content, file, scratch)
    if order["encrypt"] == "none":
        check_wrapped(file, order["compress"], digest)
    return file


def _settled(path: str) -> tuple[int, str]:
    """Make a file private and durable; return its size and its SHA-256, as read again."""
    digest = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        os.fchmod(file.fileno(), 0o600)
        os.fsync(file.fileno())
        while block := file.read(BLOCK):
            digest.update(block)
        return file.tell(), digest.hexdigest()


def alarms(order: Order, size: int, earlier: Sequence[Entry]) -> list[str]:
    """Return what is odd about a backup whose content has `size` bytes, beside those that were made `earlier`."""
    found = []
    if size < order["min_size"]:
        found.append(f"it has {size} bytes, fewer than min_size ({order['min_size']})")
    last = next((each.manifest for each in earlier if each.is_good), None)
    shrunk = order["max_shrink"]
    if last is not None and shrunk < 100 and size * 100 < last.content_size_bytes * (100 - shrunk):
        found.append(
            f"it has {size} bytes, the last good one had {last.content_size_bytes}: it shrank by more than {shrunk} %"
        )
    return found


def let_go(catalogue: Catalogue, order: Order) -> list[str]:
    """Remove what `keep` does not keep of a job's backups, and forget the missing among them; return the names."""
    zone = ZoneInfo(order["timezone"])
    own = {entry.manifest.filename: entry for entry in catalogue.of_job(order["job_id"], maker_of(order))}
    old = expired([entry.kept(zone) for entry in own.values()], order["keep"])
    return [name for name in old if (catalogue.forget if own[name].is_missing else catalogue.remove_unless_held)(name)]
