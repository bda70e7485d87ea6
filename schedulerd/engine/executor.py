"""Start runs and hear of their ends: threads for what takes a thread, none for what waits for a child.

Two pools. The starters start children and finish runs; each of their tasks is short, so a burst goes through quickly and
long jobs are not in its way. The seats are for functions of ours (built-ins), which hold a thread while they work.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..core.clock import Clock
from ..core.errors import SchedulerdError, SecretError, StartError, StoppingError
from ..core.faults import fault_point
from ..core.models import Job, Result, Run, Status
from ..core.units import counted, format_size
from ..process.output import OutputFolder
from ..process.result_file import Reported, merged, result_path, shown, take_result
from ..process.spec import Cause, End, KnownRun, ProcessSpec
from ..process.supervisor import Supervisor
from .preparation import GIVEN_UP, STOPPING, GivenUpError, Preparations
from .thread_pool import ThreadPool

log = logging.getLogger(__name__)

STARTERS = 2  # while one waits for a file of secrets, the other goes on
RELIEVE_SECONDS = 2.0  # of one task; then another thread does what else there is to do
HELD_UP_SECONDS = 5.0  # without a look: then we were stopped ourselves, and nothing else need be slow
ERROR_TAIL_BYTES = 1000
REMOVED = "its output was removed while it ran"

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


class Executor:
    """Runs what it is handed; calls `on_started(run)` and `on_finished([Finished, …])` from its own threads."""

    def __init__(
        self,
        clock: Clock,
        prepare: Mapping[str, Prepare],
        functions: Mapping[str, Function],
        output: OutputFolder,
        keepers: str,
        secrets_of: Callable[[Job], Sequence[bytes]],
        seats: int,
        may_start: Callable[[Run], None],
        on_started: Callable[[Run, datetime], Run],
        on_finished: Callable[[list[Finished]], None],
    ) -> None:
        self._clock = clock
        self._prepare = prepare
        self._functions = functions
        self._output = output
        self._secrets_of = secrets_of
        self._may_start = may_start
        self._on_started = on_started
        self._on_finished = on_finished
        self._starters = ThreadPool("starter", STARTERS, clock)
        self._seats = ThreadPool("seat", seats, clock)
        self._preparing = Preparations(clock)
        self._supervisor = Supervisor(keepers, clock, self)
        self._children: dict[str, tuple[Job, Run]] = {}  # by run_id, while their process runs
        self._stops: dict[str, threading.Event] = {}  # by run_id, while their function runs
        self._unkilled: dict[str, str] = {}  # by run_id, in words, until its end
        self.on_unkilled: Callable[[Run, str], None] = lambda _run, _who: None
        self._refused: Cause | None = None
        self._looked_at = clock.monotonic()

    def recover(self) -> dict[str, KnownRun]:
        """Connect to the keepers, and return which runs they know; see `Supervisor.recover`. Raise StartError."""
        self._starters.begin()
        return self._supervisor.recover()

    def doubt_of(self, run_id: str) -> str | None:
        """Return why a run that no keeper knows may have been started; see `Supervisor.doubt_of`."""
        return self._supervisor.doubt_of(run_id)

    def settled(self) -> None:
        """Tell the keepers that the runs that earlier daemons left are settled, durably."""
        self._supervisor.settled()

    @property
    def keepers_trouble(self) -> str | None:
        """What is wrong with the keepers, in words, or None."""
        return self._supervisor.trouble

    def restore_keepers(self) -> list[str]:
        """Have the keepers make again what somebody has removed of their files; return what is wrong, in words."""
        return self._supervisor.restore()

    @property
    def keepers(self) -> list[int]:
        """The process ids of the keepers that are there."""
        return self._supervisor.keepers

    def adopt(self, job: Job, run: Run) -> None:
        """Take over a run that an earlier daemon started and that a keeper knows: its end will be heard of."""
        self._children[run.run_id] = (job, run)

    def start(self) -> None:
        """Start hearing of children; those of the runs that nobody adopted are none of ours."""
        self._supervisor.start()

    def forget(self, run_ids: list[str]) -> None:
        """Tell the keepers that the ends of runs are in the store."""
        self._supervisor.forget(run_ids)

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

    def end_all(self, cause: Cause, children: bool = True) -> None:
        """Let everything that runs end: a word for functions and, when `children`, the kill ladder; start nothing more."""
        for stop in list(self._stops.values()):
            stop.set()
        if children:
            self._refused = cause
            self._give_up(self._preparing.give_up(0.0), STOPPING)
            for run_id in list(self._children):
                self._supervisor.end(run_id, cause)

    def look(self) -> None:
        """See to what hangs, in a time that is not noticed: called about once a second."""
        before, self._looked_at = self._looked_at, self._clock.monotonic()
        if self._looked_at - before > HELD_UP_SECONDS:
            return
        self._starters.relieve(RELIEVE_SECONDS)
        self._give_up(self._preparing.give_up(), GIVEN_UP)

    def _give_up(self, late: list[tuple[Job, Run]], why: str) -> None:
        for job, run in late:
            log.warning("job %s: run %s: %s", job.job_id, run.run_id, why)
            self._children.pop(run.run_id, None)
            self._starters.submit(self._failed, job, run, StartError(why))

    def close(self, seconds: float) -> None:
        """End the threads, waiting at most about `seconds` for those that work."""
        stuck = self._seats.close(seconds)
        if stuck:
            log.warning("built-in jobs did not stop in time: %s", ", ".join(stuck))
        self._starters.close(seconds)  # what it has not dealt with by then, the keepers tell the next daemon
        self._supervisor.close()

    def _start(self, job: Job, run: Run) -> None:
        """Start the child of a run; what goes wrong on the way is the end of the run."""
        self._children[run.run_id] = (job, run)
        try:
            if self._refused is not None:
                raise StoppingError(STOPPING)
            spec = self._prepared(job, run)
            self._may_start(run)
            fault_point("before_start")
            self._supervisor.launch(run.run_id, spec)
            if self._refused is not None:
                self._supervisor.end(run.run_id, self._refused)
        except GivenUpError:
            log.warning("job %s: the preparation of run %s, which was given up, hangs no more", job.job_id, run.run_id)
        except Exception as error:  # at the edge to the operating system and the operator's settings
            self._children.pop(run.run_id, None)
            self._failed(job, run, error)

    def _prepared(self, job: Job, run: Run) -> ProcessSpec:
        """Return the process of a run. Raise GivenUpError when that took so long that its end is written already."""
        self._preparing.begin(job, run)
        try:
            return self._prepare[job.action](job, run, self._output_path(run.run_id))
        finally:
            if not self._preparing.end(job, run):
                raise GivenUpError

    def _output_path(self, run_id: str) -> str:
        try:
            return self._output.make(run_id)
        except OSError as error:
            raise StartError(self._output.refusal() or f"cannot make a folder for its output: {error}") from error

    def _failure(self, job: Job, error: Exception) -> Result:
        if self._refused is not None:
            return Result(Status.CANCELLED, message=str(error))
        if not isinstance(error, SchedulerdError):
            log.error("job %s failed inside schedulerd", job.job_id, exc_info=error)
            return Result(Status.FAILED, message=f"{type(error).__name__}: {error}")
        return Result(Status.FAILED, message=str(error))

    def started(self, run_id: str, at: datetime) -> None:
        """Hear from the keeper that a run's child was started at `at`."""
        job, run = self._children[run_id]
        self._children[run_id] = (job, self._on_started(run, at))

    def refused(self, run_id: str, why: str) -> None:
        """Hear from the keeper that a run's child could not be started."""
        job, run = self._children.pop(run_id)
        self._starters.submit(self._not_started, job, run, why)

    def _not_started(self, job: Job, run: Run, why: str) -> None:
        """Let a run fail that no keeper could start; the reason may be that its output has no place."""
        self._failed(job, run, StartError(self._output.refusal() or why))

    def ended(self, ends: list[End]) -> None:
        """Hear from the keeper that children have ended."""
        self._starters.submit(self._ended, ends)

    def unkilled(self, run_id: str, who: str) -> None:
        """Hear from the keeper that processes of a run live on although they were killed."""
        found = self._children.get(run_id)
        if found is None:
            return
        job, run = found
        log.error("job %s: run %s cannot be ended: %s", job.job_id, run_id, who)
        self._unkilled[run_id] = f"job {job.job_id}: run {run_id} cannot be ended: {who}"
        self.on_unkilled(run, who)

    @property
    def troubles(self) -> list[str]:
        """Which runs cannot be ended, and why, in words."""
        return list(self._unkilled.values())

    def _failed(self, job: Job, run: Run, error: Exception) -> None:
        self._on_finished([Finished(job, run, self._failure(job, error), self._clock.now(), None)])

    def _ended(self, ends: list[End]) -> None:
        strangers = [end.run_id for end in ends if end.run_id not in self._children]
        if strangers:  # the store has their ends already, or has never heard of them
            log.info("the keepers knew %s that the store has no open row of", counted(len(strangers), "run"))
            self.forget(strangers)
        ours = [end for end in ends if end.run_id in self._children]
        if ours:
            self._on_finished([self._finished(end) for end in ours])

    def _finished(self, end: End) -> Finished:
        job, run = self._children.pop(end.run_id)
        self._unkilled.pop(end.run_id, None)
        _log_remains(run, end)
        try:
            result = self._result(job, run, end)
        except Exception as error:  # the run has ended all the same, and so have the others that ended with it
            result = self._failure(job, error)
        return Finished(job, run, result, end.ended_at, end.duration_seconds)

    def _result(self, job: Job, run: Run, end: End) -> Result:
        """Return how a run ended, with what it said itself; nothing secret is in what is kept."""
        status, message = judge(job, end)
        details: dict[str, Any] = {}
        if end.cpu_seconds is not None:
            details = {"cpu_seconds": round(end.cpu_seconds, 4), "peak_memory_bytes": end.peak_memory_bytes}
        struck = {
            "oom_kills": end.oom_kills, "pids_refused": end.pids_refused, "limits_not_kept": list(end.limits_not_kept),
            "output_erased": end.is_output_erased, "leftovers_killed": list(end.leftovers), "not_killed": end.unkilled,
            "output_error": REMOVED if end.is_output_removed else None,
        }  # fmt: skip
        details |= {name: value for name, value in struck.items() if value}
        reported, tail = take_result(result_path(self._output.path_of(run.run_id), job)), None
        try:
            details |= self._settled(job, run.run_id)
        except OSError as error:  # whatever is wrong with the output, what it said itself is masked
            details["output_error"] = str(error)
        try:
            if status is not Status.SUCCESS or reported != Reported():
                secrets = self._secrets_of(job)
                reported = shown(reported, secrets)
                tail = self._output.tail(run.run_id, ERROR_TAIL_BYTES, secrets) if status is not Status.SUCCESS else None
        except OSError as error:
            details["output_error"] = str(error)
        except SecretError as error:  # what it says cannot be masked
            reported, details["not_kept"] = reported.without_texts(), f"what it said: {error}"
        return merged(job, run, reported, Result(status, 0, message, end.exit_code, details), tail)

    def _settled(self, job: Job, run_id: str) -> dict[str, Any]:
        size = self._output.settle(run_id)
        if instead := self._output.instead(run_id):
            return {"output_bytes": size, "output_error": f"its output was replaced while it ran: {instead}"}
        is_cut = size > job.output_limit_bytes
        dropped = self._output.kept(run_id).dropped if is_cut else 0
        return {"output_bytes": size, **({"output_dropped_bytes": dropped} if dropped else {})}

    def _call(self, job: Job, run: Run) -> None:
        """Call the function of a run in this thread."""
        stop = self._stops[run.run_id] = threading.Event()
        start = self._clock.monotonic()
        try:
            if self._refused is not None:
                raise StoppingError(STOPPING)
            self._may_start(run)
            run = self._on_started(run, self._clock.now())
            result = self._functions[job.action](job, run, stop)
        except Exception as error:  # whatever a built-in raises is the end of its run, not of this thread
            result = self._failure(job, error)
        finally:
            del self._stops[run.run_id]
        self._on_finished([Finished(job, run, result, self._clock.now(), self._clock.monotonic() - start)])


def _log_remains(run: Run, end: End) -> None:
    """Log what its row alone would tell of the end of a run: nobody looks there when it was a success."""
    told = [REMOVED] if end.is_output_removed else []
    told += [f"killed what it left behind: {', '.join(end.leftovers)}"] if end.leftovers else []
    for text in told:
        log.warning("job %s: run %s: %s", run.job_id, run.run_id, text)


def judge(job: Job, end: End) -> tuple[Status, str | None]:
    """Return the status of a run whose child ended, and the reason in words when it is no success.

    What we ended ourselves has the status of its cause, also when its exit status was not seen.
    """
    if end.cause is Cause.TIMEOUT:  # the one it was started with; its job may have been changed since
        known = f" of {job.timeout_seconds:g} s" if job.timeout_seconds is not None else ""
        return Status.TIMED_OUT, f"ended after its timeout{known}"
    if end.cause is Cause.SHUTDOWN:
        return Status.CANCELLED, "ended because the daemon was stopped"
    if end.cause is Cause.REPLACE:
        return Status.CANCELLED, "ended because a newer run of the job takes its place"
    if end.cause is Cause.CANCEL:
        return Status.CANCELLED, "cancelled"
    if end.lost is not None:
        return Status.ABANDONED, end.lost
    if end.exit_code in job.success_exit_codes:
        return Status.SUCCESS, None
    if end.oom_kills:
        known = f" of {format_size(int(job.limits['memory']))}" if "memory" in job.limits else ""
        return Status.FAILED, f"killed by the kernel: it needed more memory than its limit{known}"
    if end.exit_code is not None and end.exit_code < 0:
        return Status.FAILED, f"killed by {_signal_words(-end.exit_code, job.limits)}"
    return Status.FAILED, f"exit status {end.exit_code}"


def _signal_words(number: int, limits: Mapping[str, Any]) -> str:
    """Return a signal with its name, and with the limit that it stands for (setrlimit(2))."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    why = ""
    if name == "SIGXCPU" and "cpu_time" in limits:
        why = f": it used more CPU time than its limit of {limits['cpu_time']:g} s (cpu_time)"
    elif name == "SIGXFSZ" and "file_size" in limits:
        why = f": it wrote a larger file than its limit of {format_size(int(limits['file_size']))} (file_size)"
    return f"signal {number} ({name}){why}"
