"""Restores the newest backup of a job to a scratch place, checks assertions, and records the result in the manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.clock import Clock
from .catalogue import Catalogue
from .codec import unwrap
from .create import SOURCE_TYPES, check_space
from .entry import CatalogueEntry
from .manifest import Manifest, backup_owner_of, shortened, stamped
from .source import BackupError, Order, RefutedError
from .verify import digest_of, verify


@dataclass(frozen=True, slots=True)
class DrillResult:
    """The backup that was restored, and how many seconds that took."""

    manifest: Manifest
    seconds: float


def drill(order: Order, clock: Clock) -> DrillResult:
    """Restore the newest backup of the job `of`. Raise BackupError when that failed or the backup was refuted.

    A backup is refuted when its file is damaged or an assertion does not hold. It is no longer good. When it could not be
    tried, for example because the scratch server is down, the result of the drill before remains.
    """
    owner = backup_owner_of(order)
    with Catalogue(order["directory"]) as catalogue:
        catalogue.clear(owner)
        entry = _newest(catalogue, order)
        start = clock.monotonic()
        about = {"job_id": order["job_id"], "run_id": order["run_id"], "assertions": len(order["assertions"])}
        try:
            with catalogue.partial(order["job_id"], order["run_id"], owner) as scratch:
                _restore(catalogue, entry, order, scratch, clock)
        except BackupError as error:
            text = shortened(str(error))  # the message of a server may contain a whole value
            failed = stamped(clock.now(), ok=False, refuted=isinstance(error, RefutedError), error=text, **about)
            catalogue.change(entry.manifest.filename, drill=after(entry.manifest.drill, failed))
            raise BackupError(f"{entry.manifest.filename}: {text}") from error
        seconds = round(clock.monotonic() - start, 3)
        passed = stamped(clock.now(), ok=True, refuted=False, seconds=seconds, **about)
        return DrillResult(catalogue.change(entry.manifest.filename, drill=passed), seconds)


def after(before: Mapping[str, Any] | None, failed: dict[str, Any]) -> dict[str, Any]:
    """Return the field `drill` of a manifest after a drill that failed. Pure.

    Only a drill that proves or refutes the backup replaces the result of one that did. A drill that could not try the backup
    is added to that result as `untried`.
    """
    if failed["refuted"] or before is None or not (before.get("ok") or before.get("refuted")):
        return failed
    return {**before, "untried": failed}


def _newest(catalogue: Catalogue, order: Order) -> CatalogueEntry:
    """Return the newest backup that is not missing, whether it is good or not."""
    found = [entry for entry in catalogue.of_job(order["of"], backup_owner_of(order)) if not entry.is_missing]
    if not found:
        raise BackupError(f"there is no backup of the job {order['of']} in {order['directory']} that was made here")
    return found[0]


def _restore(catalogue: Catalogue, entry: CatalogueEntry, order: Order, scratch: str, clock: Clock) -> None:
    manifest = verify(catalogue, entry.manifest.filename, clock.now())
    if manifest.verified is None or not manifest.verified["is_good"]:
        raise RefutedError("the file is damaged")
    source = SOURCE_TYPES[manifest.kind]
    if source.restore is None:
        raise BackupError(f"a backup of the kind {manifest.kind} cannot be restored on its own")
    check_space(order, manifest.content_size_bytes * source.restored_copies)
    content = os.path.join(scratch, "content")
    file = catalogue.open(manifest.filename)
    try:
        unwrap(order, manifest, file, content)
    finally:
        os.close(file)
    _check_content(content, manifest)
    source.restore({**order, "source": manifest.source}, content, scratch)


def _check_content(path: str, manifest: Manifest) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if digest_of(descriptor) != manifest.content_sha256:
            raise RefutedError("the unpacked content differs from what the source provided")
    finally:
        os.close(descriptor)
