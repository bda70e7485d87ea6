"""What is told of the configuration: which one is in force, and what is wrong with the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ..core.errors import Problem
from ..core.models import to_text
from ..core.units import counted


@dataclass
class ConfigState:
    """Which configuration is in force, what was wrong with the last one that was tried, and which limits are not kept."""

    path: str
    loaded_at: datetime
    problems: list[str] = field(default_factory=list)
    is_partial: bool = False  # what is in force lacks the jobs of included files, in which the problems are
    is_copy: bool = False  # what is in force was read from the copy of the last good configuration
    copy_error: str | None = None  # why what is in force could not be copied
    limits_not_kept: dict[str, list[str]] = field(default_factory=dict)

    def loaded(self, at: datetime, left_out: Sequence[Problem]) -> None:
        """Take note of a configuration that was read from the files at `at`, but for those with mistakes in them."""
        self.loaded_at, self.problems, self.is_copy = at, list(map(str, left_out)), False
        self.is_partial = bool(left_out)

    def refused(self, problems: Sequence[object]) -> None:
        """Take note of one that was not put into force."""
        self.problems, self.is_partial = list(map(str, problems)), False

    @property
    def is_unwell(self) -> bool:
        """Return whether the operator has something to mend."""
        return bool(self.problems) or self.copy_error is not None

    @property
    def notice(self) -> str | None:
        """Return what a caller must know who takes the files for what is in force, None when they are."""
        if not self.problems:
            return None
        mistakes = f"the configuration has {counted(len(self.problems), 'mistake')}"
        if self.is_partial:
            return f"{mistakes}; the included files with them are left out"
        return f"{mistakes}; the last good one, of {to_text(self.loaded_at.replace(microsecond=0))}, is in force"

    @property
    def status(self) -> str:
        """Return what the service manager's status says of it after the number of jobs."""
        if not self.problems:
            return ""
        what = "the last good configuration is used" if self.is_copy else "not reloaded"
        what = "included files are left out" if self.is_partial else what
        return f"; {what}, {counted(len(self.problems), 'mistake')}: see the journal"
