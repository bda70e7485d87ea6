"""The configuration in force: the one loaded at startup or by the last successful reload."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, TypeVar

from ..config.config import FIXED_AT_START, Config
from ..config.files import Files
from ..config.last_good import CopyError, keep
from ..config.loader import load
from ..config.status import ConfigState
from ..core.clock import Clock
from ..core.errors import ConfigError, SchedulerdError
from ..core.faults import fault_point
from ..core.models import to_text
from ..core.units import counted
from ..engine.reload import Changes, JobDefinitions
from ..host import cgroups
from ..host.systemd import Notifier
from ..secrets.job_archive import JobArchive

log = logging.getLogger(__name__)

T = TypeVar("T")

RELOAD_SECONDS = 0.5  # the shortest interval between two reloads; requests within it are combined


class Reloader:
    """Puts configurations into force, one at a time. A reload waits while another task holds `lock`."""

    def __init__(
        self,
        config: Config,
        config_state: ConfigState,
        archive: JobArchive,
        definitions: JobDefinitions,
        notifier: Notifier,
        clock: Clock,
        threads: Executor,
    ) -> None:
        """Files are read in `threads`, because access to them may block."""
        self.config = config
        self.lock = asyncio.Lock()
        self._config_state, self._archive, self._definitions = config_state, archive, definitions
        self._notifier, self._clock, self._threads = notifier, clock, threads
        self._waits = False  # a reload has been requested and has not read the files yet
        self._next_at = 0.0

    def is_wanted(self) -> bool:
        """Return whether a request needs a new reload, and record it as requested.

        A reload that has not read the files yet serves all requests made until then.
        """
        if self._waits:
            return False
        self._waits = True
        return True

    def apply(self, config: Config, files: Files) -> Changes:
        """Put a configuration into force and save a copy of its files as the last good configuration."""
        self._archive.record(config.jobs)
        changes = self._definitions.apply(config.jobs, config.pools)
        self._config_state.copy_error = None
        try:
            if not files.is_copy:
                keep(config, files, self.config.state_dir, self._clock.now())
        except (OSError, CopyError) as error:
            self._config_state.copy_error = f"cannot keep a copy of the configuration for a start with mistakes: {error}"
            log.error("%s", self._config_state.copy_error)
        return changes

    async def reload(self) -> None:
        """Read the configuration again. If a file has errors, nothing changes, and health reports them."""
        async with self.lock:
            await asyncio.sleep(max(0.0, self._next_at - self._clock.monotonic()))
            self._waits, self._next_at = False, self._clock.monotonic() + RELOAD_SECONDS
            self._notifier.reloading()
            try:
                files = Files()
                config = await self._aside(load, self.config.path, files)
                fault_point("in_reload")
                changes = await self._aside(self.apply, config, files)
                self._use(config)
                log.info("reloaded: %s", changes)
            except ConfigError as error:
                self._config_state.refused(error.problems)
                for problem in error.problems:
                    log.error("%s", problem)
                log.error("reload failed; still using the configuration loaded at %s", to_text(self._config_state.loaded_at))
            except Exception as error:  # any failure must be reported and must not end the daemon
                self._config_state.refused([f"{type(error).__name__}: {error}"])
                log.error("reload failed: %s", error, exc_info=not isinstance(error, SchedulerdError))
            self._notifier.ready(self.status)

    @property
    def status(self) -> str:
        """The status text for the service manager (sd_notify(3), STATUS=)."""
        return self.jobs + self._config_state.status

    @property
    def jobs(self) -> str:
        """The number of jobs, as a text for messages."""
        return counted(len(self.config.jobs), "job")

    def warn(self, config: Config) -> None:
        """Log the warnings of a configuration in force, its skipped files, and limits that cannot be enforced."""
        for problem in config.skipped:
            log.error("%s (its file is left out, since include_errors is skip)", problem)
        for warning in config.warnings:
            log.warning("%s", str(warning).replace(" warning:", "", 1))
        controllers = cgroups.enforceable_limits()
        unkept = {job_id: cgroups.unenforceable(job.limits, controllers) for job_id, job in config.jobs.items()}
        self._config_state.limits_not_kept = {job_id: limits for job_id, limits in unkept.items() if limits}
        for job_id, limits in self._config_state.limits_not_kept.items():
            log.warning("job %s: cannot enforce %s: no delegated cgroup v2 subtree (see docs/operations.md)",
                        job_id, ", ".join(limits))  # fmt: skip

    def _use(self, config: Config) -> None:
        kept = {name: getattr(self.config, name) for name in FIXED_AT_START}
        changed = [name for name, value in kept.items() if getattr(config, name) != value]
        if changed:
            log.warning("changes to %s take effect after a restart", ", ".join(changed))
        self.warn(config)
        self.config = replace(config, **kept)
        self._config_state.loaded(self._clock.now(), config.skipped)

    def _aside(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
