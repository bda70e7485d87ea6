"""The state of the configuration: the one in force, and the mistakes in the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ..core.errors import Problem
from ..core.models import to_text
from ..core.units import counted


@dataclass
class ConfigState:
    """The configuration in force, the mistakes of the last one that was loaded, and limits that cannot be enforced."""

    path: str
    loaded_at: datetime
    problems: list[str] = field(default_factory=list)
    is_partial: bool = False  # included files with the mistakes in `problems` are left out
    is_copy: bool = False  # the last good configuration is in force
    copy_error: str | None = None  # why the configuration in force could not be stored as the last good one
    limits_not_kept: dict[str, list[str]] = field(default_factory=dict)

    def loaded(self, at: datetime, left_out: Sequence[Problem]) -> None:
        """Record that the files were loaded at `at`, except included files with the mistakes `left_out`."""
        self.loaded_at, self.problems, self.is_copy = at, list(map(str, left_out)), False
        self.is_partial = bool(left_out)

    def refused(self, problems: Sequence[object]) -> None:
        """Record a configuration that was refused."""
        self.problems, self.is_partial = list(map(str, problems)), False

    @property
    def is_unwell(self) -> bool:
        """Return whether an operator has something to correct."""
        return bool(self.problems) or self.copy_error is not None

    @property
    def notice(self) -> str | None:
        """Return how the configuration in force differs from the files, or None."""
        if not self.problems:
            return None
        mistakes = f"the configuration has {counted(len(self.problems), 'mistake')}"
        if self.is_partial:
            return f"{mistakes}; the included files with them are left out"
        return f"{mistakes}; the last good one, of {to_text(self.loaded_at.replace(microsecond=0))}, is in force"

    @property
    def status(self) -> str:
        """Return the part of the status for the service manager that follows the number of jobs."""
        if not self.problems:
            return ""
        what = "the last good configuration is used" if self.is_copy else "not reloaded"
        what = "included files are left out" if self.is_partial else what
        return f"; {what}, {counted(len(self.problems), 'mistake')}: see the journal"
