"""What is told of the configuration: which one is in force, and what is wrong with the files."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from .durations import counted
from .model import to_text


@dataclass
class ConfigState:
    """Which configuration is in force, what was wrong with the last one that was tried, and which limits are not kept."""

    path: str
    loaded_at: datetime
    problems: list[str] = field(default_factory=list)
    is_copy: bool = False  # what is in force was read from the copy of the last good configuration
    copy_error: str | None = None  # why what is in force could not be copied
    limits_not_kept: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_unwell(self) -> bool:
        """Return whether the operator has something to mend."""
        return bool(self.problems) or self.copy_error is not None

    @property
    def notice(self) -> str | None:
        """Return what a caller must know who takes the files for what is in force, None when they are."""
        if not self.problems:
            return None
        since = to_text(self.loaded_at.replace(microsecond=0))
        return f"the configuration has {counted(len(self.problems), 'mistake')}; the last good one, of {since}, is in force"

    @property
    def status(self) -> str:
        """Return what the service manager's status says of it after the number of jobs."""
        if not self.problems:
            return ""
        what = "the last good configuration is used" if self.is_copy else "not reloaded"
        return f"; {what}, {counted(len(self.problems), 'mistake')}: see the journal"
