"""Start runs and hear of their ends: threads for what takes a thread, none for what waits for a child.

Two pools. The starters start children and finish runs; each of their tasks is short, so a burst goes through quickly and
long jobs are not in its way. The seats are for functions of ours (built-ins), which hold a thread while they work.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .clock import Clock
from .errors import SchedulerdError, StoppingError
from .model import Job, Result, Run, Status
from .output import OutputFolder
from .process import Cause, End, ProcessSpec, Supervisor
from .results import merged, result_path, take_result

log = logging.getLogger(__name__)

STARTERS = 4  # while one is in the kernel, waiting for its child's exec, another prepares the next start
ERROR_TAIL_BYTES = 1000

Prepare = Callable[[Job, Run, str], ProcessSpec]
Function = Callable[[Job, Run, threading.Event], Result]


@dataclass(frozen=True, slots=True)
class Finished:
    """How a run ended; `duration_seconds` is None when it was never started."""

    job: Job
    run: Run
    result: Result
    ended_at: datetime
    duration_seconds: float | None


class Pool:
    """Threads, made when they are needed and at most `size`, that call what is put into their queue."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._tasks: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._free = 0  # threads that wait for a task, or are on their way to
        self._untaken = 0  # tasks that no thread has taken

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function(*arguments)` in one of the threads, in the order of the calls."""
        with self._lock:
            self._untaken += 1
            if self._untaken > self._free and len(self._threads) < self.size:
                self._grow()
        self._tasks.put((function, arguments))

    def _grow(self) -> None:
        """Start one more thread. When there is none to be had, the others have to do; without others, raise RuntimeError."""
        thread = threading.Thread(target=self._work, name=f"{self.name}-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                self._untaken -= 1
                raise
        else:
            self._threads.append(thread)
            self._free += 1

    def close(self, seconds: float) -> list[str]:
        """Let the threads end when the queue is empty; return the names of those that still work after `seconds`."""
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._tasks.put(None)
        for thread in threads:
            thread.join(seconds / len(threads))
        return [thread.name for thread in threads if thread.is_alive()]

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            with self._lock:
                self._free -= 1
                self._untaken -= 1
            function, arguments = task
            try:
                function(*arguments)
            except Exception:  # a thread of the pool must not die: its seat would be gone for good
                log.exception("a task of the pool %s stumbled", self.name)
            with self._lock:
                self._free += 1


class Executor:
    """Runs what it is handed; calls `on_started(run)` and `on_finished([Finished, …])` from its own threads."""

    def __init__(
        self,
        clock: Clock,
        prepare: Mapping[str, Prepare],
        functions: Mapping[str, Function],
        output: OutputFolder,
        seats: int,
        on_started: Callable[[Run, datetime], Run],
        on_finished: Callable[[list[Finished]], None],
    ) -> None:
        self._clock = clock
        self._prepare = prepare
        self._functions = functions
        self._output = output
        self._on_started = on_started
        self._on_finished = on_finished
        self._starters = Pool("starter", STARTERS)
        self._seats = Pool("seat", seats)
        self._supervisor = Supervisor(clock, lambda ends: self._starters.submit(self._ended, ends))
        self._children: dict[str, tuple[Job, Run]] = {}  # by run_id, while their process runs
        self._stops: dict[str, threading.Event] = {}  # by run_id, while their function runs
        self._refused: Cause | None = None

    def start(self) -> None:
        """Start hearing of ends."""
        self._supervisor.start()

    def launch(self, job: Job, run: Run) -> None:
        """Start a run that is in the ledger. It ends, whatever happens, in one `Finished`."""
        if job.action in self._functions:
            self._seats.submit(self._call, job, run)
        else:
            self._starters.submit(self._start, job, run)

    def end(self, run_id: str, cause: Cause) -> bool:
        """Let one run end as `cause` says: the kill ladder for its processes, a word for its function. False: it is over."""
        if self._supervisor.end(run_id, cause):
            return True
        stop = self._stops.get(run_id)
        if stop is not None:
            stop.set()
        return stop is not None

    def end_all(self, cause: Cause) -> None:
        """Let everything that runs end: the kill ladder for processes, a word for functions; start nothing more."""
        self._refused = cause
        for run_id in list(self._children):
            self._supervisor.end(run_id, cause)
        for stop in list(self._stops.values()):
            stop.set()

    def close(self, seconds: float) -> None:
        """End the threads, waiting at most about `seconds` for those that work."""
        stuck = self._seats.close(seconds)
        if stuck:
            log.warning("built-in jobs did not stop in time: %s", ", ".join(stuck))
        self._supervisor.close()
        self._starters.close(seconds)

    def _start(self, job: Job, run: Run) -> None:
        """Start the child of a run; what goes wrong on the way is the end of the run."""
        self._children[run.run_id] = (job, run)
        try:
            if self._refused is not None:
                raise StoppingError("not started: the daemon is stopping")
            spec = self._prepare[job.action](job, run, self._output.make(run.run_id))
            started = self._on_started(run, self._clock.now())
            self._children[run.run_id] = (job, started)  # before the launch: its end may come at once
            self._supervisor.launch(run.run_id, spec)
            if self._refused is not None:
                self._supervisor.end(run.run_id, self._refused)
        except Exception as error:  # at the edge to the operating system and the operator's settings
            self._children.pop(run.run_id, None)
            self._on_finished([Finished(job, run, self._failure(job, error), self._clock.now(), None)])

    def _failure(self, job: Job, error: Exception) -> Result:
        if self._refused is not None:
            return Result(Status.CANCELLED, message=str(error))
        if not isinstance(error, SchedulerdError):
            log.error("job %s failed inside schedulerd", job.job_id, exc_info=error)
            return Result(Status.FAILED, message=f"{type(error).__name__}: {error}")
        return Result(Status.FAILED, message=str(error))

    def _ended(self, ends: list[End]) -> None:
        self._on_finished([self._finished(end) for end in ends])

    def _finished(self, end: End) -> Finished:
        job, run = self._children.pop(end.run_id)
        status, message = judge(job, end)
        details: dict[str, Any] = {"cpu_seconds": round(end.cpu_seconds, 4)}
        tail = None
        try:
            details["output_bytes"] = self._output.settle(end.run_id)
            if status is not Status.SUCCESS and details["output_bytes"]:
                tail = self._output.tail(end.run_id, ERROR_TAIL_BYTES)
        except OSError as error:  # the run has ended all the same, and so have the others that ended with it
            details["output_error"] = str(error)
        reported = take_result(result_path(self._output.path_of(end.run_id), job))
        result = merged(job, run, reported, Result(status, 0, message, end.exit_code, details), tail)
        return Finished(job, run, result, end.ended_at, end.duration_seconds)

    def _call(self, job: Job, run: Run) -> None:
        """Call the function of a run in this thread."""
        stop = self._stops[run.run_id] = threading.Event()
        start = self._clock.monotonic()
        try:
            if self._refused is not None:
                raise StoppingError("not started: the daemon is stopping")
            run = self._on_started(run, self._clock.now())
            result = self._functions[job.action](job, run, stop)
        except Exception as error:  # whatever a built-in raises is the end of its run, not of this thread
            result = self._failure(job, error)
        finally:
            del self._stops[run.run_id]
        self._on_finished([Finished(job, run, result, self._clock.now(), self._clock.monotonic() - start)])


def judge(job: Job, end: End) -> tuple[Status, str | None]:
    """Return the status of a run whose child ended, and the reason in words when it is no success."""
    if end.cause is Cause.TIMEOUT:
        return Status.TIMED_OUT, f"ended after its timeout of {job.timeout_seconds:g} s"
    if end.cause is Cause.SHUTDOWN:
        return Status.CANCELLED, "ended because the daemon was stopped"
    if end.cause is Cause.CANCEL:
        return Status.CANCELLED, "cancelled"
    if end.exit_code in job.success_exit_codes:
        return Status.SUCCESS, None
    if end.exit_code < 0:
        return Status.FAILED, f"killed by signal {-end.exit_code}"
    return Status.FAILED, f"exit status {end.exit_code}"
