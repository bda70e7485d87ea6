"""The operations on backups, in all folders that jobs write to: list, show, verify, hold, release, accept, forget."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

from ..actions.environment import users_of
from ..backups.catalogue import Catalogue
from ..backups.entry import CatalogueEntry, newest_first
from ..backups.manifest import stamped
from ..backups.source import HISTORY, BackupError
from ..backups.verify import verify
from ..core.clock import Clock
from ..core.errors import BusyError, ConflictError, NotFoundError, StartError, StoppingError
from ..core.models import Actor, Job, Role
from ..core.units import BYTES
from .roles import needs

log = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds to wait for the lock of a folder; a thread waits with the caller
Folders = Mapping[str, Collection[Job]]  # each with the jobs that write backups into it


class Backups:
    """Reads and changes the manifests in the folders that `folders` returns. Keeps no copy of them."""

    def __init__(self, folders: Callable[[], Folders], clock: Clock, is_stopping: Callable[[], bool]) -> None:
        self._folders = folders
        self._clock = clock
        self._is_stopping = is_stopping
        self._verifying = threading.Lock()

    @needs(Role.VIEWER)
    def list_backups(
        self, job_id: str | None, source: str | None, limit: int | None, with_missing: bool
    ) -> list[dict[str, Any]]:
        """Return the backups, newest first, of one job or source if given.

        Backups whose file is missing are included with `with_missing` only.
        """
        found = [
            entry
            for entry in self._entries()
            if job_id in (None, entry.manifest.job_id)
            and source in (None, entry.manifest.source)
            and (with_missing or not entry.is_missing)
        ]
        return [backup_view(entry) for entry in newest_first(found)[:limit]]

    @needs(Role.VIEWER)
    def show(self, filename: str) -> dict[str, Any]:
        """Return one backup. Raise NotFoundError."""
        with self._folder_of(filename) as catalogue:
            return backup_view(catalogue.get(filename))

    @needs(Role.OPERATOR)
    def verify(self, filename: str, actor: Actor) -> dict[str, Any]:
        """Read a backup and compare its SHA-256; return it.

        Raise NotFoundError, BackupError, StoppingError, or BusyError while another backup is verified.
        """
        if not self._verifying.acquire(blocking=False):
            raise BusyError("another backup is being verified: try again when that has ended")
        try:
            with self._folder_of(filename) as catalogue:
                verify(catalogue, filename, self._clock.now(), self._check_stop)
        except OSError as error:
            raise BackupError(f"{filename} cannot be read: {error.strerror}") from error
        finally:
            self._verifying.release()
        log.info("backup %s: verified by request of %s", filename, actor.name)
        return self.show(filename)

    def _check_stop(self) -> None:
        if self._is_stopping():
            raise StoppingError("the daemon is stopping: the backup was not verified")

    @needs(Role.OPERATOR)
    def hold(self, filename: str, actor: Actor, reason: str | None) -> dict[str, Any]:
        """Exempt a backup from retention; return it. Raise NotFoundError or BackupError."""
        return self._change(filename, actor, "put on hold", hold=self._stamp(actor, reason))

    @needs(Role.OPERATOR)
    def release(self, filename: str, actor: Actor) -> dict[str, Any]:
        """End the hold of a backup, if any; return it. Raise NotFoundError or BackupError."""
        return self._change(filename, actor, "released", hold=None)

    @needs(Role.OPERATOR)
    def accept(self, filename: str, actor: Actor, reason: str | None) -> dict[str, Any]:
        """Count a backup as good although its size is unusual; return it.

        Raise NotFoundError, BackupError, or ConflictError when there are other doubts about it.
        """
        with self._folder_of(filename) as catalogue:
            _check_acceptable(catalogue.get(filename))
        return self._change(filename, actor, "accepted", accepted=self._stamp(actor, reason))

    @needs(Role.OPERATOR)
    def forget(self, filename: str, actor: Actor) -> dict[str, Any]:
        """Remove a backup whose file is missing from the catalogue; return it as it was.

        Raise NotFoundError, BackupError, or ConflictError when the file exists.
        """
        backup = self.show(filename)
        try:
            with self._folder_of(filename) as catalogue:
                is_forgotten = catalogue.forget(filename)
        except OSError as error:
            raise BackupError(f"the manifest of {filename} cannot be removed: {error.strerror}") from error
        if not is_forgotten:
            raise ConflictError(f"the file of {filename} exists: only a backup whose file is missing can be forgotten")
        log.info("backup %s: forgotten by %s: its file is missing", filename, actor.name)
        return backup

    def _stamp(self, actor: Actor, reason: str | None) -> dict[str, Any]:
        return stamped(self._clock.now(), by=actor.name, reason=reason)

    def _change(self, filename: str, actor: Actor, what: str, **changes: Any) -> dict[str, Any]:
        try:
            with self._folder_of(filename) as catalogue:
                catalogue.change(filename, **changes)
        except OSError as error:
            raise BackupError(f"the manifest of {filename} cannot be written: {error.strerror}") from error
        log.info("backup %s: %s by %s", filename, what, actor.name)
        return self.show(filename)

    def _entries(self) -> list[CatalogueEntry]:
        found = []
        for folder, jobs in present(self._folders()):
            try:
                with catalogue_of(folder, jobs) as catalogue:
                    found += catalogue.entries()
            except (BackupError, OSError) as error:
                log.warning("backups: cannot list a folder: %s", error)
        return found

    @contextmanager
    def _folder_of(self, filename: str) -> Iterator[Catalogue]:
        """Open the catalogue that contains a backup.

        Raise NotFoundError, or BackupError when it may be in a folder that cannot be read.
        """
        unread = []
        for folder, jobs in present(self._folders()):
            with ExitStack() as stack:
                try:
                    catalogue = stack.enter_context(catalogue_of(folder, jobs))
                    catalogue.get(filename)
                except NotFoundError:
                    continue
                except (BackupError, OSError) as error:  # an error in one folder must not hide the others
                    unread.append(str(error))
                    continue
                yield catalogue
                return
        if unread:
            raise BackupError(f"backup {filename!r} not found, but not all folders can be read: {'; '.join(unread)}")
        raise NotFoundError(f"there is no backup {filename!r}")


def present(folders: Folders) -> list[tuple[str, Collection[Job]]]:
    """Return the folders that exist, with their jobs."""
    return [(folder, jobs) for folder, jobs in folders.items() if os.path.isdir(folder)]


def catalogue_of(folder: str, jobs: Collection[Job]) -> Catalogue:
    """Return the catalogue of a folder. The users of the jobs that write there may own it. Raise BackupError."""
    makers: set[int] = set()
    for job in jobs:
        with suppress(StartError):  # the user does not exist any more
            makers.update(users_of(job))
    may_be_theirs = any(job.options.get("source") != HISTORY for job in jobs)  # only the daemon's user may read the history
    return Catalogue(folder, makers=makers, patience=PATIENCE, may_be_theirs=may_be_theirs)


def _check_acceptable(entry: CatalogueEntry) -> None:
    """Raise ConflictError when there are doubts that cannot be accepted: damage, a missing file, a failed drill."""
    manifest = replace(entry.manifest, accepted={})
    left = replace(entry, manifest=manifest).doubts
    if not left:
        return
    retry = f", or, if the drill was at fault, correct it and run `schedulerctl backups drill {manifest.job_id}`"
    way_out = f"create another backup with `schedulerctl run {manifest.job_id}`"
    if manifest.is_refuted and entry.is_whole:
        way_out += retry
    raise ConflictError(
        f"{manifest.filename} cannot be accepted: {'; '.join(left)}; only an unusual size can be accepted: {way_out}"
    )


def backup_view(entry: CatalogueEntry) -> dict[str, Any]:
    """Return a backup as the API shows it: the five fields of the founding API, and further ones."""
    one = entry.manifest
    return {
        "filename": one.filename,
        "path": entry.path,
        "size_bytes": entry.size_bytes,
        "size_mb": round(entry.size_bytes / BYTES["M"], 2),
        "created_at": one.created_at,
        "sha256": one.sha256,
        "job_id": one.job_id,
        "run_id": one.run_id,
        "source": one.source,
        "kind": one.kind,
        "node": one.node,
        "content_size_bytes": one.content_size_bytes,
        "compress": one.compress,
        "encrypt": one.encrypt,
        "made_with": one.made_with,
        "is_good": entry.is_good,
        "is_missing": entry.is_missing,
        "is_proven": one.is_proven,
        "doubts": entry.doubts,
        "warnings": list(one.warnings),
        "hold": one.hold,
        "verified": one.verified,
        "drill": one.drill,
        "accepted": one.accepted,
    }
