"""Removes the leftovers of crashed runs in a folder of backups. The name of each leftover identifies its kind."""

from __future__ import annotations

import fcntl
import logging
import os

from ..host.files import lock_folder, remove_tree
from .catalogue_folder import GONE, SCRATCH, CatalogueFolder, partial_pattern
from .manifest import RUN_ID, SUFFIX, BackupOwner

log = logging.getLogger(__name__)


def clear(folder: CatalogueFolder, owner: BackupOwner) -> list[str]:
    """Remove the leftovers of all jobs of an owner, except those of runs that are alive. Return their names."""
    steps = (_clear_partial, _clear_gone, _clear_scratch)
    with folder.locked():
        names = [name for name in os.listdir(folder.descriptor) if name.startswith(".")]
        removed = [name for name in names if any(step(folder, name, owner) for step in steps)]
        os.fsync(folder.descriptor)
    return removed


def _clear_partial(folder: CatalogueFolder, name: str, owner: BackupOwner) -> bool:
    """Remove an unfinished backup. Return whether it was one that could be removed."""
    found = partial_pattern(owner, RUN_ID).fullmatch(name)
    if found is None:
        return False
    try:
        descriptor = lock_folder(name, folder.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # BlockingIOError: its run is alive
    try:
        _remove_manifest(folder, found[1])
        remove_tree(name, folder.descriptor)
    except OSError as error:  # the next backup is made nevertheless
        what = f"{folder.path}/{name}, an unfinished backup that may not be encrypted"
        log.warning("cannot remove %s: %s", what, error.strerror or error)
        return False
    finally:
        os.close(descriptor)
    return True


def _remove_manifest(folder: CatalogueFolder, run_id: str) -> None:
    """Remove the manifest of a run that was killed before the file of its backup was renamed."""
    for name in folder.manifest_names():
        manifest = folder.manifest(name)
        if manifest is not None and manifest.run_id == run_id and not folder.exists(manifest.filename):
            os.unlink(name, dir_fd=folder.descriptor)


def _clear_gone(folder: CatalogueFolder, name: str, owner: BackupOwner) -> bool:
    """Finish the removal of a backup."""
    manifest = folder.manifest(name) if name.endswith(SUFFIX + GONE) else None
    if manifest is None or not manifest.is_of(owner) or name != f".{manifest.filename}{SUFFIX}{GONE}":
        return False
    folder.finish_removal(manifest.filename, name)
    return True


def _clear_scratch(folder: CatalogueFolder, name: str, owner: BackupOwner) -> bool:
    """Remove a manifest that was not completely written. No process is writing it, since the folder is locked."""
    manifest = folder.manifest(name[1:].removesuffix(SCRATCH) + SUFFIX) if name.endswith(SCRATCH) else None
    if manifest is None or not manifest.is_of(owner):
        return False
    os.unlink(name, dir_fd=folder.descriptor)
    return True
