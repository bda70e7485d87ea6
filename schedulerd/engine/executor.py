"""The executor: starts runs and reports their ends. A run that waits for its process needs no thread.

There are two pools of threads. The starters start processes and finish runs; their tasks are short, so long jobs do not
delay a burst. The other pool is for built-ins, which occupy a thread while they run.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from ..core.clock import Clock
from ..core.errors import SchedulerdError, StartError, StoppingError
from ..core.faults import fault_point
from ..core.models import Job, Result, Run, Status
from ..core.units import counted
from ..process.outcome import OutcomeReader, warnings_of
from ..process.output import OutputFolder
from ..process.spec import Cause, End, KnownRun, ProcessSpec
from ..process.supervisor import Supervisor
from .launcher import Finished, RunListener
from .preparation import GIVEN_UP, STOPPING, GivenUpError, Preparations
from .thread_pool import ThreadPool

log = logging.getLogger(__name__)

STARTERS = 2  # while one waits for a file of secrets, the other continues
HUNG_SECONDS = 2.0  # for one task; then another thread performs the other tasks
HELD_UP_SECONDS = 5.0  # between two checks: then the daemon itself was stopped, and the tasks need not be slow

Prepare = Callable[[Job, Run, str, datetime | None], ProcessSpec]  # (job, run, output path, last success)
Function = Callable[[Job, Run, threading.Event], Result]  # the event is set when the run is to end


class _Child(NamedTuple):
    job: Job
    run: Run
    listener: RunListener


class Executor:
    """Starts the processes and functions of runs, and reports their starts and ends to the listener of each run."""

    def __init__(
        self,
        clock: Clock,
        prepare: Prepare,
        functions: Mapping[str, Function],
        output: OutputFolder,
        keepers: str,
        secrets_of: Callable[[Job], Sequence[bytes]],
        builtin_threads: int,
    ) -> None:
        """`functions` are the built-ins by action. `prepare` returns the process spec of any other run.

        `keepers` is the folder of the keepers; `secrets_of` returns the secrets to mask in the reports of runs of a job.
        """
        self._clock = clock
        self._prepare = prepare
        self._functions = functions
        self._output = output
        self._outcomes = OutcomeReader(output, secrets_of)
        self._starters = ThreadPool("starter", STARTERS, clock)
        self._builtins = ThreadPool("builtin", builtin_threads, clock)
        self._preparations = Preparations(clock)
        self._supervisor = Supervisor(keepers, clock, self)
        self._children: dict[str, _Child] = {}  # by run_id, while their process runs
        self._stops: dict[str, threading.Event] = {}  # by run_id, while their function runs
        self._unkilled: dict[str, str] = {}  # by run_id, as a message, until its end
        self._refused: Cause | None = None
        self._checked_at = clock.monotonic()

    def recover(self) -> dict[str, KnownRun]:
        """Connect to the keepers. Return the runs that they know, see `Supervisor.recover`. Raise StartError."""
        self._starters.begin()
        return self._supervisor.recover()

    def doubt_of(self, run_id: str) -> str | None:
        """Return why a run that no keeper knows may have been started; see `Supervisor.doubt_of`."""
        return self._supervisor.doubt_of(run_id)

    def settled(self) -> None:
        """Notify the keepers that all runs of earlier daemons are recorded durably."""
        self._supervisor.settled()

    @property
    def keepers_trouble(self) -> str | None:
        """Return the error of the keepers, as a message, or None."""
        return self._supervisor.trouble

    def restore_keepers(self) -> list[str]:
        """Order the keepers to create removed files again. Return their errors, as messages."""
        return self._supervisor.restore()

    @property
    def keepers(self) -> list[int]:
        """Return the process ids of the keepers that are running."""
        return self._supervisor.keepers

    def adopt(self, job: Job, run: Run, listener: RunListener) -> None:
        """Report the end of a run that an earlier daemon started and that a keeper knows."""
        self._children[run.run_id] = _Child(job, run, listener)

    def start(self) -> None:
        """Start to receive reports of keepers. Reports about runs that were not adopted are ignored."""
        self._supervisor.start()

    def forget(self, run_ids: list[str]) -> None:
        """Order the keepers to forget runs whose ends are in the store."""
        self._supervisor.forget(run_ids)

    def launch(self, job: Job, run: Run, listener: RunListener) -> None:
        """Start a run that is in the ledger. In every case, its end follows in `listener.on_finished`."""
        child = _Child(job, run, listener)
        if job.action in self._functions:
            self._builtins.submit(self._call, child)
        else:
            self._starters.submit(self._start, child)

    def end(self, run_id: str, cause: Cause) -> bool:
        """End a run: by the kill ladder, or by the event of its function. Return False when it has neither, or no longer."""
        if self._supervisor.end(run_id, cause):
            return True
        stop = self._stops.get(run_id)
        if stop is not None:
            stop.set()
        return stop is not None

    def end_all(self, cause: Cause, children: bool = True) -> None:
        """End all built-ins and, with `children`, all processes. Start no further runs."""
        for stop in list(self._stops.values()):
            stop.set()
        if children:
            self._refused = cause
            self._give_up(self._preparations.give_up(0.0), STOPPING)
            for run_id in list(self._children):
                self._supervisor.end(run_id, cause)

    def check_hung(self) -> None:
        """Replace hung threads and give up hung preparations. This is quick, and called about once a second."""
        before, self._checked_at = self._checked_at, self._clock.monotonic()
        if self._checked_at - before > HELD_UP_SECONDS:
            return
        self._starters.replace_hung(HUNG_SECONDS)
        self._give_up(self._preparations.give_up(), GIVEN_UP)

    def _give_up(self, late: list[str], why: str) -> None:
        for run_id in late:
            child = self._children.pop(run_id, None)
            if child is not None:
                log.warning("job %s: run %s: %s", child.job.job_id, run_id, why)
                self._starters.submit(self._failed, child, StartError(why))

    def close(self, seconds: float) -> None:
        """End the threads. Wait for busy ones, for at most about `seconds`."""
        stuck = self._builtins.close(seconds)
        if stuck:
            log.warning("built-in jobs did not stop in time: %s", ", ".join(stuck))
        self._starters.close(seconds)  # the keepers report the remaining runs to the next daemon
        self._supervisor.close()

    def _start(self, child: _Child) -> None:
        """Start the process of a run. An error in a step of the start ends the run."""
        job, run, listener = child
        self._children[run.run_id] = child
        try:
            if self._refused is not None:
                raise StoppingError(STOPPING)
            spec = self._prepared(child)
            listener.may_start(run)
            fault_point("before_start")
            self._supervisor.launch(run.run_id, spec)
            if self._refused is not None:
                self._supervisor.end(run.run_id, self._refused)
        except GivenUpError:
            log.warning("job %s: the preparation of run %s, which was given up, no longer hangs", job.job_id, run.run_id)
        except Exception as error:  # from the operating system, or from the settings of the job
            self._children.pop(run.run_id, None)
            self._failed(child, error)

    def _prepared(self, child: _Child) -> ProcessSpec:
        """Return the process spec of a run. Raise GivenUpError when this took so long that the run was given up."""
        job, run, listener = child
        self._preparations.begin(job.job_id, run.run_id)
        try:
            return self._prepare(job, run, self._output_path(run.run_id), listener.last_success_at(run))
        finally:
            if not self._preparations.end(job.job_id, run.run_id):
                raise GivenUpError

    def _output_path(self, run_id: str) -> str:
        try:
            return self._output.make(run_id)
        except OSError as error:
            raise StartError(self._output.refusal() or f"cannot create a folder for its output: {error}") from error

    def _failure(self, job: Job, error: Exception) -> Result:
        if self._refused is not None:
            return Result(Status.CANCELLED, message=str(error))
        if not isinstance(error, SchedulerdError):
            log.error("job %s failed inside schedulerd", job.job_id, exc_info=error)
            return Result(Status.FAILED, message=f"{type(error).__name__}: {error}")
        return Result(Status.FAILED, message=str(error))

    def on_child_started(self, run_id: str, at: datetime) -> None:
        """Accept the report of a keeper that the process of a run was started at `at`."""
        child = self._children[run_id]
        self._children[run_id] = child._replace(run=child.listener.on_started(child.run, at))

    def on_child_refused(self, run_id: str, why: str) -> None:
        """Accept the report of a keeper that the process of a run could not be started."""
        self._starters.submit(self._not_started, self._children.pop(run_id), why)

    def _not_started(self, child: _Child, why: str) -> None:
        """End a run that no keeper could start; the reason may be the folder of its output."""
        self._failed(child, StartError(self._output.refusal() or why))

    def on_children_ended(self, ends: list[End]) -> None:
        """Accept the report of keepers that processes have ended."""
        self._starters.submit(self._ended, ends)

    def on_child_unkilled(self, run_id: str, who: str) -> None:
        """Accept the report of a keeper that processes of a run survived SIGKILL."""
        child = self._children.get(run_id)
        if child is None:
            return
        self._unkilled[run_id] = f"job {child.job.job_id}: run {run_id} cannot be ended: {who}"
        log.error("%s", self._unkilled[run_id])
        child.listener.on_unkilled(child.run, who)

    @property
    def troubles(self) -> list[str]:
        """Return which runs cannot be ended, and why, as messages."""
        return list(self._unkilled.values())

    def _failed(self, child: _Child, error: Exception) -> None:
        result = self._failure(child.job, error)
        child.listener.on_finished([Finished(child.job, child.run, result, self._clock.now(), None)])

    def _ended(self, ends: list[End]) -> None:
        strangers = [end.run_id for end in ends if end.run_id not in self._children]
        if strangers:  # their ends are already in the store, or the runs never were
            log.info("the keepers knew %s that are not open in the store", counted(len(strangers), "run"))
            self.forget(strangers)
        by_listener: dict[RunListener, list[Finished]] = {}
        for end in ends:
            if end.run_id in self._children:
                child = self._children.pop(end.run_id)
                by_listener.setdefault(child.listener, []).append(self._finished(child, end))
        for listener, finished in by_listener.items():
            listener.on_finished(finished)

    def _finished(self, child: _Child, end: End) -> Finished:
        job, run, _ = child
        self._unkilled.pop(end.run_id, None)
        for text in warnings_of(end):
            log.warning("job %s: run %s: %s", run.job_id, run.run_id, text)
        try:
            result = self._outcomes.read(job, run, end)
        except Exception as error:  # the run has ended nevertheless, and so have those reported with it
            result = self._failure(job, error)
        return Finished(job, run, result, end.ended_at, end.duration_seconds)

    def _call(self, child: _Child) -> None:
        """Call the function of a built-in in this thread."""
        job, run, listener = child
        stop = self._stops[run.run_id] = threading.Event()
        start = self._clock.monotonic()
        try:
            if self._refused is not None:
                raise StoppingError(STOPPING)
            listener.may_start(run)
            run = listener.on_started(run, self._clock.now())
            result = self._functions[job.action](job, run, stop)
        except Exception as error:  # an error of a built-in ends its run, not this thread
            result = self._failure(job, error)
        finally:
            del self._stops[run.run_id]
        listener.on_finished([Finished(job, run, result, self._clock.now(), self._clock.monotonic() - start)])
