"""The status of a history, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The status of a history. `users` are the hosts that have it open now, if its server reports them."""

    kind: str
    version: int
    newest: int
    size_bytes: int
    runs: Mapping[str, int] = field(default_factory=dict)  # by status
    users: tuple[str, ...] = ()
    owner: str | None = None

    @property
    def is_up_to_date(self) -> bool:
        """Return whether this version of schedulerd can use it without a migration."""
        return self.version == self.newest
