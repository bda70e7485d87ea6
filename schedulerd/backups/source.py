"""The types that all kinds of backup sources share.

Programs of our own (`actions/programs/backup.py` and `restore_drill.py`) do the work as processes of a run, so that
timeouts, limits and priorities apply to it, and a restart of the daemon does not stop it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.errors import SchedulerdError

HISTORY = "history"  # the source that is the database of schedulerd itself
Order = Mapping[str, Any]  # the input of our programs, as JSON; see actions/backup.py


class BackupError(SchedulerdError):
    """A backup could not be made, checked or restored. No incomplete file remains."""


class RefutedError(BackupError):
    """A restored backup does not have the expected content. It is not good."""


@dataclass(frozen=True, slots=True)
class SourceCopy:
    """The program and version that made a copy, and warnings about the copy."""

    made_with: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceType:
    """The operations of a kind of source. Each function raises BackupError.

    `copy(order, path)` writes a complete copy to a new file. `check(order, path)` reads all of a copy. `size(order)` returns
    an upper estimate of the size of a copy in bytes. `restore(order, path, scratch)` restores a copy to an empty folder or a
    database of its own, and checks the `assertions` of the order (RefutedError). It is None for copies that cannot be
    restored on their own. `restored_copies` is the number of copies in the scratch folder during a restore.
    """

    suffix: str
    copy: Callable[[Order, str], SourceCopy]
    check: Callable[[Order, str], None]
    size: Callable[[Order], int]
    restore: Callable[[Order, str, str], None] | None = None
    restored_copies: int = 1
