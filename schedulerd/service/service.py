"""The service: all resources that callers can use, each with its operations. No HTTP here."""

from __future__ import annotations

from typing import Any

from ..actions.last_checks import LastChecks
from ..config.status import ConfigState
from ..core.clock import Clock
from ..engine.manual_runs import ManualRuns
from ..engine.scheduler import Scheduler
from ..engine.state import JobTable
from ..process.output import OutputFolder
from ..secrets.job_archive import JobArchive
from ..store.protocol import Store
from .backups import Backups
from .explanations import Explanations
from .health import Health, Monitors
from .jobs import Jobs
from .occurrences import Occurrences
from .outputs import Outputs, Sources
from .progress import Progress
from .run_lookup import RunLookup
from .runs import Runs
from .serializers import backlog_view
from .simulations import Simulations
from .statistics import Statistics
from .wait_reasons import WaitReasons


class Service:
    """The resources. Each operation declares the role that it requires (`needs`)."""

    def __init__(
        self,
        table: JobTable,
        scheduler: Scheduler,
        store: Store,
        clock: Clock,
        config_state: ConfigState,
        checks: LastChecks,
        monitors: Monitors,
        output: OutputFolder,
        archive: JobArchive,
        sources: Sources,
        backups: Backups,
    ) -> None:
        """`sources` returns the URLs of the configuration in force, whose passwords are masked in each output."""
        self._scheduler = scheduler
        self._store = store
        manual_runs = ManualRuns(scheduler)
        lookup = RunLookup(table, store)
        progress = Progress(lookup, store, clock, output)
        wait_reasons = WaitReasons(table, scheduler.run_queue)
        self.jobs = Jobs(scheduler, manual_runs, store, clock, lookup, config_state)
        self.outputs = Outputs(lookup, output, archive, sources)
        self.runs = Runs(lookup, progress, self.outputs, output, scheduler, manual_runs)
        self.occurrences = Occurrences(table, store, clock, wait_reasons)
        self.explanations = Explanations(table, store, clock, wait_reasons)
        self.simulations = Simulations(table, store, clock)
        self.health = Health(scheduler, store, clock, config_state, checks, monitors, self.jobs)
        self.statistics = Statistics(scheduler, store, clock)
        self.backups = backups
        self.waits_for: str | None = None  # why the store cannot be opened yet: until then no request is answered

    def readiness(self) -> dict[str, Any]:
        """Return whether runs can be started and recorded. Needs no authentication.

        `degraded`: they are recorded in the outage journal.
        """
        if self._scheduler.is_stopping or self.waits_for is not None or not self._store.accepts_runs:
            return {"status": "not ready"}
        if self._store.trouble is not None:
            return {"status": "degraded", "backlog": backlog_view(self._store.backlog)}
        return {"status": "ready"}
