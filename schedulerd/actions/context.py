"""Jobs that schedulerd brings along: functions that run in its own threads, each bounded in what it waits for.

A built-in is a function from a `Context` to a `Result`. What it raises makes the run `failed`, with the error's text.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..backups.source import HISTORY
from ..config.config import Config
from ..core.clock import Clock, SteadyTime
from ..core.errors import SchedulerdError
from ..core.models import Job, Run, Secret
from ..process.output import OutputFolder
from ..secrets.references import resolve
from ..store.protocol import Store
from .last_checks import LastChecks


class StoppedError(SchedulerdError):
    """The run was told to stop, and did."""


@dataclass(frozen=True)
class Context:
    """What a built-in may use."""

    job: Job
    run: Run
    config: Config
    clock: Clock
    store: Store
    output: OutputFolder
    checks: LastChecks
    steady: SteadyTime
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def options(self) -> Mapping[str, Any]:
        """Return what stands under the action's key in the YAML."""
        return self.job.options

    def check_stop(self) -> None:
        """Raise StoppedError when the run was told to stop; long work calls it between its steps."""
        if self.stop.is_set():
            raise StoppedError("stopped before it was done")

    def url_of(self, source: str | Secret) -> str:
        """Return the URL of a source given by name, by reference or as the URL itself. Raise SecretError."""
        if source == HISTORY:
            return resolve(self.config.store)
        if isinstance(source, str) and source in self.config.sources:
            return resolve(self.config.sources[source])
        return resolve(source)
