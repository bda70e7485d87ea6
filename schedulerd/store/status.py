"""How a history stands, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """How a history stands. `users` are those who have it open now, as far as its server tells, `owner` whose it is."""

    kind: str
    version: int
    newest: int
    size_bytes: int
    runs: Mapping[str, int] = field(default_factory=dict)  # by status
    users: tuple[str, ...] = ()
    owner: str | None = None

    @property
    def is_up_to_date(self) -> bool:
        """Return whether this program can work with it as it is."""
        return self.version == self.newest
