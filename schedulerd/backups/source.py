"""Backups: making them, checking them, proving them, and the catalogue of what there is.

The catalogue is the folder itself: beside each backup stands its manifest, `<filename>.json`, so the catalogue is where
the backups are, also on the day when the daemon's history is lost. The work is done by programs of ours
(`actions/programs/backup.py` and `restore_drill.py`) under the keeper: they can be ended, limited and niced as any run
can, and they outlive a restart of the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.errors import SchedulerdError

HISTORY = "history"  # the source that is schedulerd's own database
Order = Mapping[str, Any]  # what a program of ours is told to do: JSON, see actions/backups.py


class BackupError(SchedulerdError):
    """A backup could not be made, checked or restored; says why, and nothing half-made is left of it."""


class RefutedError(BackupError):
    """A backup was restored, and has not in it what it should: it is not good."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What is to be remembered of a copy: the program that made it, and what was odd."""

    made_with: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """What a kind of source can do; each function raises BackupError.

    `copy(order, path)` writes a whole copy to a path where nothing is, `check(order, path)` reads all of one, and
    `restore(order, path, scratch)` restores one aside, in an empty folder or a database of its own, and holds the
    order's `assertions` against it (RefutedError); None for what only is kept, and cannot be tried on its own. Before the
    first copy `size(order)` is asked how many bytes that will have at most, about; while a copy is restored there are
    `restored_copies` of it in the scratch folder.
    """

    suffix: str
    copy: Callable[[Order, str], Copied]
    check: Callable[[Order, str], None]
    size: Callable[[Order], int]
    restore: Callable[[Order, str, str], None] | None = None
    restored_copies: int = 1
