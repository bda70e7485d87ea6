"""Restore the newest backup aside, hold assertions against it, and write into the catalogue what came of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.clock import Clock
from .catalogue import Catalogue
from .codec import unwrap
from .entry import Entry
from .manifest import Manifest, maker_of, shortened, stamped
from .room import check_room
from .source import BackupError, Order, RefutedError
from .sources import KINDS
from .verify import digest_of, verify


@dataclass(frozen=True, slots=True)
class Proven:
    """A backup that was restored, and how long that took."""

    manifest: Manifest
    seconds: float


def drill(order: Order, clock: Clock) -> Proven:
    """Try the newest backup of the job `of`. Raise BackupError when it could not be restored, or was refuted.

    Refuted means that the file is damaged or an assertion does not hold: then it is not good any more. When it could only
    not be tried (the scratch server is away), it stays what it was: proven, or refuted by an earlier drill.
    """
    with Catalogue(order["directory"]) as catalogue:
        catalogue.clear(maker_of(order))
        entry = _newest(catalogue, order)
        start = clock.monotonic()
        told = {"job_id": order["job_id"], "run_id": order["run_id"], "assertions": len(order["assertions"])}
        try:
            with catalogue.partial(order["job_id"], order["run_id"], maker_of(order)) as scratch:
                _restored(catalogue, entry, order, scratch, clock)
        except BackupError as error:
            text = shortened(str(error))  # a server may quote all of a value
            failed = stamped(clock.now(), ok=False, refuted=isinstance(error, RefutedError), error=text, **told)
            catalogue.change(entry.manifest.filename, drill=after(entry.manifest.drill, failed))
            raise BackupError(f"{entry.manifest.filename}: {text}") from error
        seconds = round(clock.monotonic() - start, 3)
        proof = stamped(clock.now(), ok=True, refuted=False, seconds=seconds, **told)
        return Proven(catalogue.change(entry.manifest.filename, drill=proof), seconds)


def after(before: Mapping[str, Any] | None, failed: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of its drills after one that failed: a verdict is only replaced by a verdict. Pure.

    A drill that could not try the backup is noted in it as `untried`.
    """
    if failed["refuted"] or before is None or not (before.get("ok") or before.get("refuted")):
        return failed
    return {**before, "untried": failed}


def _newest(catalogue: Catalogue, order: Order) -> Entry:
    """Return the backup that is tried: the newest that is there, good or in doubt."""
    found = [entry for entry in catalogue.of_job(order["of"], maker_of(order)) if not entry.is_missing]
    if not found:
        raise BackupError(f"there is no backup of the job {order['of']} in {order['directory']} that was made here")
    return found[0]


def _restored(catalogue: Catalogue, entry: Entry, order: Order, scratch: str, clock: Clock) -> None:
    manifest = verify(catalogue, entry.manifest.filename, clock.now())
    if manifest.verified is None or not manifest.verified["is_good"]:
        raise RefutedError("the file is damaged")
    restore = KINDS[manifest.kind].restore
    if restore is None:
        raise BackupError(f"a backup of the kind {manifest.kind} cannot be tried on its own")
    check_room(order, manifest.content_size_bytes * KINDS[manifest.kind].restored_copies)
    content = os.path.join(scratch, "content")
    file = catalogue.open(manifest.filename)
    try:
        unwrap(order, manifest, file, content)
    finally:
        os.close(file)
    _check_content(content, manifest)
    restore({**order, "source": manifest.source}, content, scratch)


def _check_content(path: str, manifest: Manifest) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if digest_of(descriptor) != manifest.content_sha256:
            raise RefutedError("what it unpacks to is not what the source gave")
    finally:
        os.close(descriptor)
