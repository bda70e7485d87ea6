"""Those who do harm. Each makes a plan for a round: what it does, and when; all from one random number generator."""

from __future__ import annotations

from tests.torture.nemeses.base import Nemesis, Step
from tests.torture.nemeses.clock import Clock
from tests.torture.nemeses.configuration import Reload
from tests.torture.nemeses.disk import BothLogs, Descriptors, Full, HistoryErrors, IoErrors, Shortage
from tests.torture.nemeses.processes import Calm, Freeze, Keepers, Kill, Reboot, Restart
from tests.torture.nemeses.servers import Postgres, SilentPostgres

ALL: dict[str, type[Nemesis]] = {
    each.name: each
    for each in (
        Calm, Kill, Keepers, Restart, Reboot, Freeze, IoErrors, HistoryErrors, BothLogs, Full, Descriptors, Shortage, Clock,
        Reload, Postgres, SilentPostgres,
    )
}  # fmt: skip

__all__ = ["ALL", "Nemesis", "Step"]
