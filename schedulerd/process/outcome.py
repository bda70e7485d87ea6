"""Outcome: how the process of a run ended, by its exit status, its result file and its output."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.errors import SecretError
from ..core.models import Job, Result, Run, Status
from ..core.units import format_size
from .output import OutputFolder
from .result_file import Reported, merged, result_path, shown, take_result
from .spec import Cause, End

ERROR_TAIL_BYTES = 1000
REMOVED = "its output was removed while it was running"


class OutcomeReader:
    """Reads the outcomes of runs; `secrets_of(job)` returns what is masked in them, or raises SecretError."""

    def __init__(self, output: OutputFolder, secrets_of: Callable[[Job], Sequence[bytes]]) -> None:
        self._output = output
        self._secrets_of = secrets_of

    def read(self, job: Job, run: Run, end: End) -> Result:
        """Return how a run ended, with what it reported itself, without secrets."""
        status, message = judge(job, end)
        details = _measured(end)
        reported, tail = take_result(result_path(self._output.path_of(run.run_id), job)), None
        try:
            details |= self._output_details(job, run.run_id)
        except OSError as error:  # the result file is masked nevertheless
            details["output_error"] = str(error)
        try:
            if status is not Status.SUCCESS or reported != Reported():
                secrets = self._secrets_of(job)
                reported = shown(reported, secrets)
                tail = self._output.tail(run.run_id, ERROR_TAIL_BYTES, secrets) if status is not Status.SUCCESS else None
        except OSError as error:
            details["output_error"] = str(error)
        except SecretError as error:  # its texts cannot be masked
            reported, details["not_kept"] = reported.without_texts(), f"what it reported: {error}"
        return merged(job, run, reported, Result(status, 0, message, end.exit_code, details), tail)

    def _output_details(self, job: Job, run_id: str) -> dict[str, Any]:
        size = self._output.settle(run_id)
        if instead := self._output.instead(run_id):
            return {"output_bytes": size, "output_error": f"its output was replaced while it was running: {instead}"}
        is_cut = size > job.output_limit_bytes
        dropped = self._output.stats(run_id).dropped if is_cut else 0
        return {"output_bytes": size, **({"output_dropped_bytes": dropped} if dropped else {})}


def _measured(end: End) -> dict[str, Any]:
    """Return the details of a run that its keeper has measured or noted."""
    details: dict[str, Any] = {}
    if end.cpu_seconds is not None:
        details = {"cpu_seconds": round(end.cpu_seconds, 4), "peak_memory_bytes": end.peak_memory_bytes}
    noted = {
        "oom_kills": end.oom_kills, "pids_refused": end.pids_refused, "limits_not_kept": list(end.limits_not_kept),
        "output_erased": end.is_output_erased, "leftovers_killed": list(end.leftovers), "not_killed": end.unkilled,
        "output_error": REMOVED if end.is_output_removed else None,
    }  # fmt: skip
    return details | {name: value for name, value in noted.items() if value}


def warnings_of(end: End) -> list[str]:
    """Return what the log must show of the end of a run: in the row of a successful run it would not be noticed."""
    found = [REMOVED] if end.is_output_removed else []
    return found + ([f"killed its leftovers: {', '.join(end.leftovers)}"] if end.leftovers else [])


def judge(job: Job, end: End) -> tuple[Status, str | None]:
    """Return the status of a run whose process ended, and the reason as a message when it did not succeed.

    A run that the daemon ended has the status of that cause, also when its exit status was lost.
    """
    if end.cause is Cause.TIMEOUT:  # of its start; the timeout of the job may have changed since
        known = f" of {job.timeout_seconds:g} s" if job.timeout_seconds is not None else ""
        return Status.TIMED_OUT, f"ended after its timeout{known}"
    if end.cause is Cause.SHUTDOWN:
        return Status.CANCELLED, "ended because the daemon was stopped"
    if end.cause is Cause.REPLACE:
        return Status.CANCELLED, "ended because a newer run of the job replaces it"
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
    """Return a signal with its name, and the limit that it enforces (setrlimit(2))."""
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
