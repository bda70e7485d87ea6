"""What built-ins receive. A built-in is a function that maps a `Context` to a `Result` and runs in a thread of the daemon.

An exception makes the run `failed`, with the text of the error as its message.
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
    """The run was ordered to stop, and has stopped."""


@dataclass(frozen=True)
class Context:
    """What a built-in may use. `stop` is set when the run is to end."""

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
        """Return the settings of the action."""
        return self.job.options

    def check_stop(self) -> None:
        """Raise StoppedError when the run is to end. Long work calls this between its steps."""
        if self.stop.is_set():
            raise StoppedError("stopped before it had finished")

    def url_of(self, source: str | Secret) -> str:
        """Return the URL of a source, which is given by name, by secret reference or as a URL. Raise SecretError."""
        if source == HISTORY:
            return resolve(self.config.store)
        if isinstance(source, str) and source in self.config.sources:
            return resolve(self.config.sources[source])
        return resolve(source)
