"""The catalogue of a folder: the backups whose manifests are in it. Files without a manifest are never touched.

All access goes through one descriptor of the folder and follows no symbolic link. So all files that are listed, read or
deleted are in that folder, which only its owner or root can change (`trusted_folder.py`). In the folder of the user of a
job, root has only the rights of that user.

A run makes a backup in a private folder `.JOB-RUN.OWNER.partial`, which is locked as long as the run is alive. Two renames
add it to the catalogue: first the manifest, then the file. Three steps remove it; the first one renames its manifest. The
next process that opens the catalogue completes or removes the leftovers of a crash (`catalogue_cleanup.py`). A manifest
whose file has disappeared is a missing backup: it does not count, and is reported until it is forgotten.

Several hosts may share a folder. Each of them lists all backups, but counts and removes only its own ones (`BackupOwner`).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Self

from ..core.errors import NotFoundError
from ..core.faults import fault_point
from ..core.models import to_micros
from ..host.files import FOLDER_FLAGS, remove_tree
from .catalogue_cleanup import clear
from .catalogue_folder import GONE, PATIENCE, SCRATCH, CatalogueFolder, partial_name
from .entry import CatalogueEntry, newest_first
from .manifest import FILENAME, SUFFIX, BackupOwner, Manifest, instant
from .source import BackupError


class Catalogue:
    """The backups of one folder. Use it as a context manager in one thread, or close it."""

    def __init__(
        self, folder: str, is_created: bool = False, makers: Collection[int] = (), patience: float = PATIENCE,
        may_be_theirs: bool = True,
    ) -> None:  # fmt: skip
        """Open a folder; it is created with mode 0700 when it `is_created`. Raise BackupError when it cannot be trusted.

        `makers` are the uids of the users as whom jobs make backups in it: the folder may belong to one of them.
        `may_be_theirs`: a job could have such a user. `patience`: how many seconds to wait for a lock of another process.
        """
        self.folder = folder
        self._place = CatalogueFolder(folder, is_created, makers, may_be_theirs, patience)

    def __enter__(self) -> Self:
        self._place.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder."""
        self._place.close()

    # Reading

    def entries(self) -> list[CatalogueEntry]:
        """Return the backups of all jobs, newest first."""
        found = [entry for entry in map(self._entry, self._place.manifest_names()) if entry is not None]
        return newest_first(found)

    def of_job(self, job_id: str, owner: BackupOwner) -> list[CatalogueEntry]:
        """Return the backups of a job of an owner, the last created one first."""
        own = [entry for entry in self.entries() if _is_of(entry.manifest, job_id, owner)]
        return sorted(own, key=lambda each: each.manifest.sequence, reverse=True)

    def get(self, filename: str) -> CatalogueEntry:
        """Return a backup by its name. Raise NotFoundError."""
        entry = self._entry(filename + SUFFIX) if re.fullmatch(FILENAME, filename) else None
        if entry is None:
            raise NotFoundError(f"there is no backup {filename!r} in {self.folder}")
        return entry

    def open(self, filename: str) -> int:
        """Return a descriptor for reading the file of a backup. Raise NotFoundError, BackupError or OSError."""
        entry = self.get(filename)
        if entry.is_missing:
            raise NotFoundError(f"the file of the backup {filename!r} is missing from {self.folder}")
        if entry.alien:
            raise BackupError(f"{entry.path} is not read: {entry.alien}")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(filename, flags, dir_fd=self._place.descriptor)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or self._place.why_foreign(found):
            os.close(descriptor)
            raise NotFoundError(f"there is no backup {filename!r} in {self.folder}")
        return descriptor

    def _entry(self, name: str) -> CatalogueEntry | None:
        manifest = self._place.manifest(name)
        if manifest is None or manifest.filename + SUFFIX != name:
            return None
        try:
            found = os.stat(manifest.filename, dir_fd=self._place.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return self._missing(manifest)
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        path = os.path.join(self.folder, manifest.filename)
        return CatalogueEntry(manifest, path, found.st_size, alien=self._place.why_foreign(found))

    def _missing(self, manifest: Manifest) -> CatalogueEntry | None:
        """Return a backup without its file, or None when it is being added or removed.

        The order of these checks matters: a `partial` folder exists from before the manifest until the file is renamed.
        """
        is_added = self._place.exists(partial_name(manifest.job_id, manifest.run_id, manifest.owner))
        if is_added or self._place.exists(manifest.filename) or not self._place.exists(manifest.filename + SUFFIX):
            return None
        return CatalogueEntry(manifest, os.path.join(self.folder, manifest.filename), 0, is_missing=True)

    # Adding

    @contextmanager
    def partial(self, job_id: str, run_id: str, owner: BackupOwner) -> Iterator[str]:
        """Provide the path of an empty private folder. It is locked against `clear`, and removed afterwards."""
        name = partial_name(job_id, run_id, owner)
        descriptor = self._place.make_partial(name)
        try:
            self._place.check_owner(os.fstat(descriptor).st_uid)
            yield os.path.join(self.folder, name)
        finally:
            remove_tree(name, self._place.descriptor)
            os.close(descriptor)

    def enter(self, file: str, manifest: Manifest) -> Manifest:
        """Add a complete, fsynced file of a `partial` folder. Return its manifest with its sequence. Raise BackupError."""
        with self._place.locked():
            entered = replace(manifest, sequence=self._next_sequence(manifest))
            for name in (manifest.filename, manifest.filename + SUFFIX):
                if self._place.exists(name):
                    raise BackupError(f"{os.path.join(self.folder, name)} already exists")
            try:
                self._rename(file, entered)
            except BaseException:  # including SystemExit on SIGTERM
                if not self._place.exists(manifest.filename):
                    with suppress(FileNotFoundError):
                        os.unlink(manifest.filename + SUFFIX, dir_fd=self._place.descriptor)
                raise
        return entered

    def _rename(self, file: str, manifest: Manifest) -> None:
        folder, name = os.path.split(file)
        partial = os.open(os.path.basename(folder), FOLDER_FLAGS, dir_fd=self._place.descriptor)
        try:
            self._place.write_manifest(manifest, "manifest", partial)
            fault_point("backup_named")
            os.rename(name, manifest.filename, src_dir_fd=partial, dst_dir_fd=self._place.descriptor)
        finally:
            os.close(partial)
        os.fsync(self._place.descriptor)

    def _next_sequence(self, manifest: Manifest) -> int:
        """Return the sequence of a new backup: after all others of its job, regardless of the clock.

        Sequences are microseconds, so that backups which are moved away and back later have the right order again.
        """
        known = (each for each in map(self._place.manifest, self._place.manifest_names()) if each is not None)
        last = max((each.sequence for each in known if _is_of(each, manifest.job_id, manifest.owner)), default=0)
        return max(last + 1, to_micros(instant(manifest.created_at)))

    # Changing and removing

    def change(self, filename: str, **changes: Any) -> Manifest:
        """Replace fields of the manifest of a backup. Raise NotFoundError."""
        with self._place.locked():
            changed = replace(self.get(filename).manifest, **changes)
            scratch = f".{filename}{SCRATCH}"
            with suppress(FileNotFoundError):
                os.unlink(scratch, dir_fd=self._place.descriptor)  # left by a crash, since the folder is locked
            self._place.write_manifest(changed, scratch, self._place.descriptor)
            os.fsync(self._place.descriptor)
        return changed

    def remove(self, filename: str) -> None:
        """Remove a backup from the catalogue, and delete its file. Raise NotFoundError."""
        self._remove(filename, lambda _entry: True)

    def remove_unless_held(self, filename: str) -> bool:
        """Remove a backup unless it is on hold or its file is foreign. Return whether it was removed."""
        return self._remove(filename, lambda entry: entry.manifest.hold is None and entry.alien is None)

    def forget(self, filename: str) -> bool:
        """Remove a backup whose file is missing. Return whether it was missing. Raise NotFoundError."""
        return self._remove(filename, lambda entry: entry.is_missing)

    def clear(self, owner: BackupOwner) -> list[str]:
        """Remove the leftovers of crashed runs of an owner. Return their names."""
        return clear(self._place, owner)

    def _remove(self, filename: str, may_remove: Callable[[CatalogueEntry], bool]) -> bool:
        with self._place.locked():
            if not may_remove(self.get(filename)):
                return False
            gone = f".{filename}{SUFFIX}{GONE}"
            descriptor = self._place.descriptor
            os.rename(filename + SUFFIX, gone, src_dir_fd=descriptor, dst_dir_fd=descriptor)
            self._place.finish_removal(filename, gone)
            return True


def _is_of(manifest: Manifest, job_id: str, owner: BackupOwner) -> bool:
    return manifest.job_id == job_id and manifest.is_of(owner)
