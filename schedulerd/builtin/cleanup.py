"""The built-in `cleanup`: old runs go, with their output, in small batches that leave the store free for others between."""

from __future__ import annotations

from datetime import timedelta

from ..model import Result, Status
from ..store import durable
from . import Context


def run(context: Context) -> Result:
    """Delete runs that finished longer ago than `older_than`; never a job's newest row, occurrence or result."""
    before = context.clock.now() - timedelta(seconds=context.options["older_than"])
    runs = freed = 0
    while gone := durable(context.store.delete_expired(before, context.options["batch"])):
        runs += len(gone)
        freed += sum(context.output.delete(run_id) for run_id in gone)
        context.check_stop()
    details = {"runs": runs, "freed_bytes": freed}
    return Result(Status.SUCCESS, runs, f"{runs} runs deleted, {freed} bytes of output freed", details=details)
