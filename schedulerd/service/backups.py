"""The backups of this host, over all folders that jobs put them into: shown, checked, put on hold, and cleared up after."""

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
from ..backups.entry import Entry, newest_first
from ..backups.manifest import Maker, stamped
from ..backups.source import HISTORY, BackupError
from ..backups.verify import verify
from ..core.clock import Clock
from ..core.errors import BusyError, ConflictError, NotFoundError, StartError, StoppingError
from ..core.models import Actor, Job
from ..core.units import BYTES

log = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds for which a folder may be locked: who asks waits, and a thread with them
Folders = Mapping[str, Collection[Job]]  # with the jobs that make backups there


class Shelf:
    """Looks into the folders that `folders` names; their manifests are the catalogue, nothing is remembered here."""

    def __init__(self, folders: Callable[[], Folders], maker: Maker, clock: Clock, is_stopping: Callable[[], bool]) -> None:
        self._folders = folders
        self._maker = maker
        self._clock = clock
        self._is_stopping = is_stopping
        self._verifying = threading.Lock()

    def page(self, job_id: str | None, source: str | None, limit: int | None, with_missing: bool) -> list[dict[str, Any]]:
        """Return the backups that are there, newest first, of one job or source when it is given; or the missing, too."""
        found = [
            entry
            for entry in self._entries()
            if job_id in (None, entry.manifest.job_id)
            and source in (None, entry.manifest.source)
            and (with_missing or not entry.is_missing)
        ]
        return [backup_view(entry) for entry in newest_first(found)[:limit]]

    def show(self, filename: str) -> dict[str, Any]:
        """Return one backup. Raise NotFoundError."""
        with self._folder_of(filename) as catalogue:
            return backup_view(catalogue.get(filename))

    def verify(self, filename: str, actor: Actor) -> dict[str, Any]:
        """Read a backup and compare its SHA-256. One at a time: raise BusyError; NotFoundError, or BackupError."""
        if not self._verifying.acquire(blocking=False):
            raise BusyError("another backup is being verified: ask again when that is done")
        try:
            with self._folder_of(filename) as catalogue:
                verify(catalogue, filename, self._clock.now(), self._go_on)
        except OSError as error:
            raise BackupError(f"{filename} cannot be read: {error.strerror}") from error
        finally:
            self._verifying.release()
        log.info("backup %s: verified for %s", filename, actor.name)
        return self.show(filename)

    def _go_on(self) -> None:
        if self._is_stopping():
            raise StoppingError("the daemon is stopping: nothing was found about the backup")

    def hold(self, filename: str, actor: Actor, reason: str | None) -> dict[str, Any]:
        """Keep a backup whatever `keep` says. Raise NotFoundError."""
        return self._change(filename, actor, "put on hold", hold=self._stamp(actor, reason))

    def release(self, filename: str, actor: Actor) -> dict[str, Any]:
        """End a hold; a backup without one stays as it is. Raise NotFoundError."""
        return self._change(filename, actor, "released", hold=None)

    def accept(self, filename: str, actor: Actor, reason: str | None) -> dict[str, Any]:
        """Say that what was odd about a backup is as it should be: it counts as good.

        Raise NotFoundError, or ConflictError when more is wrong with it than that.
        """
        with self._folder_of(filename) as catalogue:
            _check_acceptable(catalogue.get(filename))
        return self._change(filename, actor, "accepted", accepted=self._stamp(actor, reason))

    def forget(self, filename: str, actor: Actor) -> dict[str, Any]:
        """Take a backup whose file is missing out of the catalogue. Raise NotFoundError, ConflictError or BackupError."""
        backup = self.show(filename)
        try:
            with self._folder_of(filename) as catalogue:
                is_forgotten = catalogue.forget(filename)
        except OSError as error:
            raise BackupError(f"the manifest of {filename} cannot be removed: {error.strerror}") from error
        if not is_forgotten:
            raise ConflictError(f"the file of {filename} is there: only a backup whose file is missing can be forgotten")
        log.info("backup %s: forgotten by %s, its file was missing", filename, actor.name)
        return backup

    def clear_soon(self, folders: Folders | None = None) -> None:
        """Begin to take away what runs have left that were killed: what is half-made may be in the clear.

        In a thread of its own, which a folder that hangs may keep. All folders, unless some are named.
        """
        thread = threading.Thread(target=self._clear, args=(folders,), name="clearing", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread is to be had: the next run of a job tries again
            log.warning("cannot remove what killed runs have left: %s", error)

    def _clear(self, folders: Folders | None) -> None:
        for folder, jobs in _present(self._folders() if folders is None else folders):
            try:
                with catalogue_of(folder, jobs) as catalogue:
                    removed = catalogue.clear(self._maker)
            except Exception as error:  # one folder's trouble must not keep the copies in the others
                log.warning("%s: cannot remove what killed runs have left: %s", folder, error)
                continue
            if removed:
                log.info("%s: removed what killed runs have left: %s", folder, ", ".join(removed))

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

    def _entries(self) -> list[Entry]:
        found = []
        for folder, jobs in _present(self._folders()):
            try:
                with catalogue_of(folder, jobs) as catalogue:
                    found += catalogue.entries()
            except (BackupError, OSError) as error:
                log.warning("backups cannot be listed: %s", error)
        return found

    @contextmanager
    def _folder_of(self, filename: str) -> Iterator[Catalogue]:
        """Lend the catalogue that has a backup. Raise NotFoundError, or BackupError when it may be where nobody can look."""
        unseen = []
        for folder, jobs in _present(self._folders()):
            with ExitStack() as stack:
                try:
                    catalogue = stack.enter_context(catalogue_of(folder, jobs))
                    catalogue.get(filename)
                except NotFoundError:
                    continue
                except (BackupError, OSError) as error:  # which must not keep those in the other folders
                    unseen.append(str(error))
                    continue
                yield catalogue
                return
        if unseen:
            raise BackupError(f"there is no backup {filename!r} in the folders that can be looked into: {'; '.join(unseen)}")
        raise NotFoundError(f"there is no backup {filename!r}")


def _present(folders: Folders) -> list[tuple[str, Collection[Job]]]:
    return [(folder, jobs) for folder, jobs in folders.items() if os.path.isdir(folder)]


def catalogue_of(folder: str, jobs: Collection[Job]) -> Catalogue:
    """Return the catalogue of a folder, which may belong to those as whom jobs make backups there. Raise BackupError."""
    makers: set[int] = set()
    for job in jobs:
        with suppress(StartError):  # there is no such user any more
            makers.update(users_of(job))
    may_be_theirs = any(job.options.get("source") != HISTORY for job in jobs)  # the history is for the daemon's user alone
    return Catalogue(folder, makers=makers, patience=PATIENCE, may_be_theirs=may_be_theirs)


def _check_acceptable(entry: Entry) -> None:
    """Raise ConflictError when a backup is in doubt for what nobody can accept: damage, a missing file, a drill."""
    manifest = replace(entry.manifest, accepted={})
    left = replace(entry, manifest=manifest).doubts
    if not left:
        return
    retry = f"; or, when the drill was wrong, mend it and run `schedulerctl backups drill {manifest.job_id}`"
    raise ConflictError(
        f"{manifest.filename} cannot be accepted, only an odd size can: {'; '.join(left)}. "
        f"Make another: `schedulerctl run {manifest.job_id}`{retry if manifest.is_refuted and entry.is_whole else ''}"
    )


def backup_view(entry: Entry) -> dict[str, Any]:
    """Return a backup: the five fields of the founding API, and ours."""
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
