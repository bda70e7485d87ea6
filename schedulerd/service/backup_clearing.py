"""Removes the partial backups of failed runs, which may be unencrypted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from ..backups.manifest import BackupOwner
from ..core.models import Job, Status
from ..engine.launcher import Finished
from .backups import Folders, catalogue_of, present

log = logging.getLogger(__name__)

BACKUP_ACTIONS = ("backup", "restore_drill")


class BackupClearing:
    """Clears folders of backups, each time in a thread of its own, which a folder that hangs cannot delay."""

    def __init__(self, folders: Callable[[], Folders], owner: BackupOwner) -> None:
        """`folders()` returns all folders of backups."""
        self._folders = folders
        self._owner = owner

    def on_ended(self, ends: Sequence[Finished]) -> None:
        """Clear the folders of the backups among `ends` that failed."""
        folders: dict[str, list[Job]] = {}
        for end in ends:
            is_failed = end.job.action in BACKUP_ACTIONS and end.result.status is not Status.SUCCESS
            if is_failed and "directory" in end.job.options:
                folders.setdefault(end.job.options["directory"], []).append(end.job)
        if folders:
            self._start(folders)

    def clear_all(self) -> None:
        """Clear all folders."""
        self._start(None)

    def _start(self, folders: Folders | None) -> None:
        thread = threading.Thread(target=self._clear, args=(folders,), name="clearing", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread can be started: the next run of the job tries again
            log.warning("backups: cannot remove partial backups: %s", error)

    def _clear(self, folders: Folders | None) -> None:
        for folder, jobs in present(self._folders() if folders is None else folders):
            try:
                with catalogue_of(folder, jobs) as catalogue:
                    removed = catalogue.clear(self._owner)
            except Exception as error:  # an error in one folder must not affect the others
                log.warning("backups: cannot remove partial backups in %s: %s", folder, error)
                continue
            if removed:
                log.info("backups: removed partial backups in %s: %s", folder, ", ".join(removed))
