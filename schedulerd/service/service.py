"""The service: all resources that callers can use, each with its operations. No HTTP here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..actions.last_checks import LastChecks
from ..config.status import ConfigState
from ..engine.engine import Engine
from ..process.output import OutputFolder
from ..secrets.job_archive import JobArchive
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
        engine: Engine,
        config_state: ConfigState,
        checks: LastChecks,
        monitors: Monitors,
        output: OutputFolder,
        archive: JobArchive,
        sources: Sources,
        backups: Backups,
        waits_for: Callable[[], str | None],
    ) -> None:
        """`waits_for()` returns why the store cannot be opened yet; until it returns None no request is answered.

        `sources` returns the URLs of the configuration in force, whose passwords are masked in each output.
        """
        self.waits_for = waits_for
        self._table, self._store = engine.table, engine.store
        table, store, clock, manual_runs = engine.table, engine.store, engine.clock, engine.manual_runs
        lookup = RunLookup(table, store)
        progress = Progress(lookup, store, clock, output)
        wait_reasons = WaitReasons(table, engine.run_queue)
        self.jobs = Jobs(engine, manual_runs, store, clock, lookup, config_state)
        self.outputs = Outputs(lookup, output, archive, sources)
        self.runs = Runs(lookup, progress, self.outputs, output, engine, manual_runs)
        self.occurrences = Occurrences(table, store, clock, wait_reasons)
        self.explanations = Explanations(table, store, clock, wait_reasons)
        self.simulations = Simulations(table, store, clock)
        self.health = Health(engine, store, clock, config_state, checks, monitors, self.jobs)
        self.statistics = Statistics(engine, store, clock)
        self.backups = backups

    def readiness(self) -> dict[str, Any]:
        """Return whether runs can be started and recorded. Needs no authentication.

        `degraded`: they are recorded in the outage journal.
        """
        if self._table.is_stopping or self.waits_for() is not None or not self._store.accepts_runs:
            return {"status": "not ready"}
        if self._store.trouble is not None:
            return {"status": "degraded", "backlog": backlog_view(self._store.backlog)}
        return {"status": "ready"}
