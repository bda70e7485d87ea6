"""The values of a configuration without mistakes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core.errors import Problem
from ..core.models import Job, Secret
from ..core.proxies import Network

# Changes to these take effect after a restart
FIXED_AT_START = ("state_dir", "store", "store_schema", "outage_journal_bytes", "seats", "catch_up_spread_seconds", "api")


@dataclass(frozen=True)
class Peer:
    """A user or a group with a role on the Unix socket."""

    role: str
    user: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class ApiSettings:
    """The listeners of the API: the Unix socket `socket`, and the TCP address `host` and `port` unless `host` is None."""

    socket: str
    socket_group: str = "schedulerd"
    peers: tuple[Peer, ...] = ()
    host: str | None = None
    port: int = 0
    allow_plain_remote: bool = False
    hosts: tuple[str, ...] = ()
    trusted_proxy: tuple[Network, ...] = ()


@dataclass(frozen=True)
class Config:
    """A configuration. `jobs` has the order of the files, `pools` the number of slots of each pool.

    `store` is a sqlite:// or postgresql:// URL, or a secret that contains a postgresql:// URL. `skipped` are the mistakes in
    included files that were left out.
    """

    path: str
    timezone: str
    state_dir: str
    store: str | Secret
    store_schema: str
    outage_journal_bytes: int
    seats: int
    catch_up_spread_seconds: float
    leaves_running: bool
    shutdown_grace_seconds: float
    sources: Mapping[str, str | Secret]
    api: ApiSettings
    jobs: Mapping[str, Job]
    pools: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = field(default=(), compare=False)
    skipped: tuple[Problem, ...] = field(default=(), compare=False)

    @property
    def backup_folders(self) -> dict[str, list[Job]]:
        """Return the folders of backups, the default one first, with the jobs that make backups in each."""
        found: dict[str, list[Job]] = {os.path.join(self.state_dir, "backups"): []}
        for job in self.jobs.values():
            if job.action == "backup":
                found.setdefault(job.options["directory"], []).append(job)
        return found
