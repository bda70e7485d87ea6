"""Composition root: wires the components, handles signals, runs startup and shutdown.

| thread         | owner      | waits on               | never                                    |
|----------------|------------|------------------------|------------------------------------------|
| main, asyncio  | server     | sockets, signals       | calls the store directly (in_thread)     |
| planner        | planner    | the clock              | runs a job                               |
| store-writer   | store      | changes to write       | waits long for the database              |
| store-database | store      | the disk, the server   | decides anything                         |
| starter-N      | executor   | short tasks            | waits for a child                        |
| builtin-N      | executor   | a built-in job         |                                          |
| supervisor     | supervisor | the keepers            | does more than receive and hand over     |
| clearing       | service    | a folder of backups    | is waited for                            |
| keeper-N       | supervisor | a keeper's start       | reports to another than the supervisor   |
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from . import __version__, logs
from .actions import analytics, cleanup, health_check
from .actions.context import Context
from .actions.last_checks import LastChecks
from .actions.registry import prepare
from .api.listeners import Listeners
from .api.server import Server, tcp_api, unix_api
from .api.tokens import Tokens
from .backups.manifest import backup_owner_at
from .config.composites import Section
from .config.config import Config
from .config.files import Files
from .config.last_good import Loaded
from .config.settings_actions import ACTIONS
from .config.status import ConfigState
from .core.clock import Clock, SteadyTime, SystemClock
from .core.errors import StartError, StoreAwayError
from .core.loop_steps import StepSequence
from .core.models import Job, Origin, Result, Run, Secret, Status, new_run_id
from .core.units import counted
from .engine.engine import Engine
from .engine.executor import Executor, Function
from .engine.recovery import close_open_runs
from .host import cgroups
from .host.descriptors import capacity, limit, limit_at_start
from .host.locks import PathLock
from .host.systemd import Notifier
from .process.output import OutputFolder
from .process.spec import Cause
from .secrets.job_archive import JobArchive
from .service.backup_clearing import BackupClearing
from .service.backups import Backups
from .service.configuration import Reloader
from .service.health import Monitors
from .service.service import Service
from .state_dir import clear_the_way, lock, spool_of
from .store.factory import store_at
from .upkeep import Upkeep

log = logging.getLogger(__name__)

T = TypeVar("T")

BUILTINS: dict[str, Callable[[Context], Result]] = {
    "health_check": health_check.run,
    "analytics": analytics.run,
    "cleanup": cleanup.run,
}
KILL_MARGIN_SECONDS = 2.0  # after the last SIGKILL, for the ends to be seen and written
CLOSE_SECONDS = 2.0
STOP_MARGIN_SECONDS = 20.0  # for everything else at a stop
RETRY_SECONDS = 1.0  # between two attempts to open the store at the start
OWN_THREADS = 4  # a check of files, or a reload, may hang
THREAD_SECONDS = 5.0  # for their start
WORD_SECONDS = 10.0  # between two notifications of systemd while the store is opened


class Daemon:
    """One schedulerd on one state directory."""

    def __init__(self, loaded: Loaded, passed: list[socket.socket]) -> None:
        """Lock the state directory and build the components; start nothing. `passed` are the sockets of the service manager.

        Raise SchedulerdError when the state directory, a lock or a listener cannot be had.
        """
        config = loaded.config
        self._read_at_start: Files | None = loaded.files
        self.clock = SystemClock()
        self.notifier = Notifier(self.clock)
        self._locks = lock(config, self.clock)
        clear_the_way(config.state_dir, self.clock)
        self._listeners, self._are_open = Listeners(config.api, config.state_dir, passed), False
        self._ends_all = False
        spool = spool_of(config, self.clock)
        self.store = store_at(config.store, config.store_schema, self.clock, config.state_dir, spool, opens=False)
        self.output = OutputFolder(os.path.join(config.state_dir, "output"))
        self.archive = JobArchive(os.path.join(config.state_dir, "keepsakes.json"))
        self.checks = LastChecks()
        self.steady = SteadyTime(self.clock)
        self.config_state = _state_of(loaded, self.clock)
        keepers = os.path.join(config.state_dir, "keeper")
        functions = {name: self._function(run) for name, run in BUILTINS.items()}
        self.executor = Executor(self.clock, prepare, functions, self.output, keepers, self._secrets_of, config.seats)
        self._locks.append(PathLock(keepers, os.path.join(keepers, "lock"), f"the keepers of {keepers}", is_folder=True))
        self._upkeep = Upkeep(self._locks, self._listeners, self.executor.restore_keepers, self.output, self.clock)
        self._clearing = BackupClearing(lambda: self.config.backup_folders, backup_owner_at(config.state_dir))
        self._steps = self._steps_of_a_tick()
        self.engine = Engine(
            self.store, self.clock, self.executor, socket.gethostname(), spread_seconds=config.catch_up_spread_seconds,
            on_tick=self._steps, on_alive=self.notifier.feed_watchdog, on_ended=self._clearing.on_ended,
        )  # fmt: skip
        self.table = self.engine.table
        self._waits_for: str | None = None  # why the history cannot be read yet
        monitors = Monitors(
            self._check_health, lambda: self.executor.keepers_trouble, lambda: capacity(self.executor.keepers),
            self._troubles, self._loop_trouble,
        )  # fmt: skip
        self.service = Service(
            self.engine, self.config_state, self.checks, monitors, self.output, self.archive, self._databases,
            Backups(lambda: self.config.backup_folders, self.clock, lambda: self.table.is_stopping), lambda: self._waits_for,
        )  # fmt: skip
        self.tokens = Tokens(config.state_dir, self.clock)
        self.server = Server()
        self._own_threads = ThreadPoolExecutor(OWN_THREADS, "daemon")
        self._reloader = Reloader(
            config, self.config_state, self.archive, self.engine.definitions, self.notifier, self.clock, self._own_threads
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def _steps_of_a_tick(self) -> StepSequence:
        """Return the periodic tasks of the daemon, which the planner's loop calls."""
        return StepSequence(self.clock, {
            "the log": lambda _now: logs.flush(),
            "the notification of the service manager": lambda _now: self.notifier.resend_pending(),
            "the check for hung starts": lambda _now: self.executor.check_hung(),
            "the check of locks and sockets": self._check_files_soon,
            "the check for a clock that is ahead": lambda _now: self.steady.poll(),
        })  # fmt: skip

    @property
    def config(self) -> Config:
        """Return the configuration in force."""
        return self._reloader.config

    def _function(self, run: Callable[[Context], Result]) -> Function:
        """Return a built-in as the executor calls it. It gets the configuration in force when it starts."""
        return lambda job, row, stop: run(self._context(job, row, stop))

    def _context(self, job: Job, run: Run, stop: threading.Event | None = None) -> Context:
        return Context(
            job, run, self.config, self.clock, self.store, self.output, self.checks, self.steady, stop or threading.Event()
        )

    def _secrets_of(self, job: Job) -> Sequence[bytes]:
        """Return the secrets to mask in the output and result of a job. Raise SecretError if they are no longer known."""
        return self.archive.secrets_of(job, job.job_id not in self.table.states, self._databases())

    def _databases(self) -> Sequence[str | Secret]:
        """Return all URLs of databases in the configuration. They may contain passwords."""
        return [*self.config.sources.values(), self.config.store]

    def _check_health(self) -> dict[str, object]:
        """Run a health check for a caller before any job has run one."""
        jobs = _health_jobs(self.config)
        kind = ACTIONS["health_check"].kind
        assert isinstance(kind, Section)  # noqa: S101 - it is one in the table
        job = jobs[0] if jobs else Job("health", "health", "health_check", kind.read({}, (), lambda _path, _text: None))
        now = self.clock.now()
        run = Run(new_run_id(now), job.job_id, Origin.MANUAL, Status.RUNNING, now)
        return health_check.check(self._context(job, run), {})

    def _check_files_soon(self, _now: datetime) -> None:
        if self._upkeep.is_due() and self._loop is not None:
            self._loop.call_soon_threadsafe(self._soon, self._restore_files)

    def _troubles(self) -> list[str]:
        tokens = self.tokens.trouble
        return [*self._upkeep.troubles, *self.executor.troubles, *logs.troubles(), *([tokens] if tokens is not None else [])]

    def _loop_trouble(self) -> str | None:
        """Return what fails in the planner's loop, as a message, or None."""
        return "; ".join(filter(None, (self.engine.trouble, self._steps.trouble))) or None

    async def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, and shut down in order."""
        loop = self._loop = asyncio.get_running_loop()
        stop, hurry = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: hurry.set() if stop.is_set() else stop.set())
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        loop.add_signal_handler(signal.SIGUSR1, self._end_all_soon)
        if await self._start(stop):
            await stop.wait()
        await self._stop(hurry)

    async def _start(self, stop: asyncio.Event) -> bool:
        """Start everything. Return False if a signal arrived while the daemon waited for the store."""
        async with self._reloader.lock:  # a SIGHUP waits until the start is complete
            await self._begin_threads()
            self._reloader.warn(self.config)
            if not await self._open_store(stop):
                return False
            await asyncio.to_thread(self._recover)
        self.engine.planner.start()
        self._clearing.clear_all()
        self._waits_for = None
        await self._open_doors()
        gc.collect()
        gc.freeze()  # these objects stay: later collections need not examine them
        self.notifier.ready(self._reloader.status)
        log.info(
            "up to %d descriptors for the daemon and each keeper, %d for a job (RLIMIT_NOFILE)", limit(), limit_at_start()
        )
        source = "the last good copy of " if self.config_state.is_copy else ""
        log.info("schedulerd %s is ready: %s from %s%s", __version__, self._reloader.jobs, source, self.config.path)
        return True

    async def _begin_threads(self) -> None:
        """Start the daemon's own threads and those that serve requests. Raise StartError.

        They start now, since a thread that cannot be started later would fail one request.
        """
        number = min(32, (os.cpu_count() or 1) + 4)  # as asyncio would have
        others = ThreadPoolExecutor(number, "asyncio")
        loop = asyncio.get_running_loop()
        loop.set_default_executor(others)
        for pool, size in ((self._own_threads, OWN_THREADS), (others, number)):
            all_there = threading.Barrier(size, timeout=THREAD_SECONDS)
            try:
                await asyncio.gather(*(loop.run_in_executor(pool, all_there.wait) for _ in range(size)))
            except RuntimeError as error:
                raise StartError(f"no thread can be started: {error}") from error

    async def _open_store(self, stop: asyncio.Event) -> bool:
        """Open the store; wait while it is unavailable, since only the ledger tells what has been started already."""
        while not stop.is_set():
            opened = asyncio.ensure_future(asyncio.to_thread(self.store.open))
            while not opened.done():  # a large history may be migrated
                self.notifier.starting("Opening the store")
                await asyncio.wait([opened], timeout=WORD_SECONDS)
            try:
                opened.result()
            except StoreAwayError as error:
                if self._waits_for is None:
                    log.error("waiting for the store: %s", error)
                self._waits_for = str(error)
                self.notifier.starting(f"Waiting for the store: {error}")
                await self._open_doors()
            else:
                return True
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_SECONDS)
        return False

    def _recover(self) -> None:
        try:
            cgroups.enter_leaf()
        except OSError as error:
            log.warning("cannot use control groups for runs: %s", error)
        known = self.executor.recover()
        actions = {job_id: job.action for job_id, job in self.config.jobs.items()} | self.archive.actions()
        builtin = {job_id for job_id, action in actions.items() if action in BUILTINS}
        still = close_open_runs(self.store, self.clock, self.config.jobs, known, builtin, self.executor.doubt_of)
        self.executor.settled()
        self.steady = SteadyTime(self.clock, next((run.queued_at for run in self.store.recent(1)), None))
        self.checks.recall(self.store, [job.job_id for job in _health_jobs(self.config)])
        assert self._read_at_start is not None  # noqa: S101 - until here
        self._reloader.apply(self.config, self._read_at_start)
        self._read_at_start = None
        self.engine.watch_again(still.running, self.archive.removed_job)
        self.executor.start()
        self.engine.start_up(still)

    async def _open_doors(self) -> None:
        if self._are_open:
            return
        self._are_open = True
        settings, tcp = self.config.api, self._listeners.tcp
        if tcp is not None:
            first = self.tokens.create_first()
            if first is not None:
                log.info("created the first token, with the role admin, in %s", first)
            address = await self.server.open(tcp, tcp_api(self.service, settings, self.tokens, self.clock))
            host = f"[{settings.host}]" if ":" in (settings.host or "") else settings.host
            log.info("listening on http://%s:%d (tokens: %s)", host, address[1], self.config.state_dir)
        for unix in self._listeners.unix:
            path = await self.server.open(unix, unix_api(self.service, settings, self.clock))
            log.info("listening on unix socket %s", path)

    def _end_all_soon(self) -> None:
        log.info("the next stop ends running runs, whatever on_stop is")
        self._ends_all = True

    @property
    def _leaves_running(self) -> bool:
        return self.config.leaves_running and not self._ends_all

    def _reload_soon(self) -> None:
        """Reload, unless a requested reload has not begun yet: it will read the current files."""
        if self._reloader.is_wanted():
            self._soon(self._restore_files)
            self._soon(self._reloader.reload)

    def _soon(self, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.get_running_loop().create_task(act(), name=act.__name__.strip("_"))
        self._tasks.add(task)  # the event loop keeps weak references only
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    async def _restore_files(self) -> None:
        """Create files and sockets again that were removed while the daemon is running."""
        if self.table.is_stopping:
            return
        fresh = await self._aside(self._upkeep.restore)
        if fresh is not None:
            self.server.retire(self.config.api.socket)
            await self.server.open(fresh, unix_api(self.service, self.config.api, self.clock))

    def _aside(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Call a blocking function in a thread of the daemon's own: requests may occupy all others."""
        return asyncio.get_running_loop().run_in_executor(self._own_threads, function, *arguments)

    async def _stop(self, hurry: asyncio.Event) -> None:
        """Start nothing more, wait for runs, end the rest, record the ends, and close the listeners last."""
        graces = (job.kill_grace_seconds for job in self.config.jobs.values())
        self.notifier.stopping(self.config.shutdown_grace_seconds + max(graces, default=0.0) + STOP_MARGIN_SECONDS)
        if self._listeners.are_held and self._leaves_running:  # the next daemon starts within moments and answers
            await self.server.stop_listening()
        log.info("stopping: waiting for %s", counted(len(self.table.running()), "run"))
        self.engine.stop()
        await self._aside(self.engine.planner.stop)
        await self._drain(hurry)
        await self.server.close()
        await self._aside(self.executor.close, CLOSE_SECONDS)
        await self._aside(self.store.close)
        self._listeners.remove()
        for each in self._locks:
            each.close()
        log.info("stopped")

    async def _drain(self, hurry: asyncio.Event) -> None:
        """Wait for running runs; end the rest after the grace period, or leave them to the keepers (`on_stop: leave`)."""
        counts = self._needs_the_daemon if self._leaves_running else lambda _run: True
        idle = self._aside(self.table.wait_until_idle, self.config.shutdown_grace_seconds, counts)
        hurried = asyncio.create_task(hurry.wait())
        first: set[asyncio.Future[Any]] = {idle, hurried}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        running = [run for run in self.table.running() if counts(run)]
        self.executor.end_all(Cause.SHUTDOWN, children=not self._leaves_running)
        if running:
            log.warning("stopping: ending %s", counted(len(running), "run"))
            graces = [job.kill_grace_seconds for job in map(self._job_of, running) if job is not None]
            await self._aside(self.table.wait_until_idle, max(graces, default=0.0) + KILL_MARGIN_SECONDS, counts)
        self._take_leave(self.table.running())

    def _take_leave(self, left: list[Run]) -> None:
        if left and self._leaves_running:
            log.info("stopping: %s left running; the next daemon supervises them", counted(len(left), "run"))
        elif left:
            log.error("stopping: %s could not be ended; the next daemon supervises them", counted(len(left), "run"))
        self.engine.waiters.answer(left)

    def _needs_the_daemon(self, run: Run) -> bool:
        """Return whether a run ends with the daemon: it is a built-in, or its process has not been started yet."""
        job = self._job_of(run)
        return run.started_at is None or (job is not None and job.action in BUILTINS)

    def _job_of(self, run: Run) -> Job | None:
        state = self.table.state_of(run)
        return state.job if state is not None else None


def _health_jobs(config: Config) -> list[Job]:
    return [job for job in config.jobs.values() if job.action == "health_check"]


def _state_of(loaded: Loaded, clock: Clock) -> ConfigState:
    state = ConfigState(loaded.config.path, loaded.loaded_at or clock.now(), is_copy=loaded.files.is_copy)
    if loaded.problems:
        state.refused(loaded.problems)
    else:
        state.loaded(state.loaded_at, loaded.config.skipped)
    return state
