"""Compare a burst, in which all jobs are due at the same second, with the bare limit of this machine.

The benchmark prints the limit of the machine (in C, then in a bare loop in Python), the results of schedulerd, alone and
while a caller requests the list of jobs, the ratios, the number of requests per second, the idle cost, and the start of a
fleet of jobs that are not due. It makes no assertion about time. The exit status is 1 when a run was lost or doubled, and 2
when a measurement failed. Limits and bursts alternate in several rounds, and medians are shown, because the load of a
machine varies.

All jobs are due at the Unix second T because they are `every: {T}s`: intervals are counted from 1970, so T is the first
multiple in the future, and the next one is decades later.

Lateness is always measured in the same way: the time immediately before a child is started, minus the time it was due.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callers import QUIET, end_of, helper, sleep_until
from figures import Burst, percentile, print_table, say
from idle import idleness, measure_fleet
from limits import PROGRAM, c_limit, python_floor
from machine import print_machine
from target import Daemon, WalCommits, await_end, counting_syncs, make_bytecode, read_history, running

# One burst


@dataclass
class Seen:
    """All measurements of one daemon."""

    ready: float
    rss: float
    peak: float
    burst: Burst
    rows: int
    lost: int
    doubled: int
    commits: int
    resets: int
    asked: list[float]
    syncs: int | None
    after: list[str]


def due_jobs(count: int, due: int) -> str:
    """Return the YAML of jobs that are all due at the second `due`."""
    return "".join(f"  job-{number}: {{every: {due}s, command: [{PROGRAM}]}}\n" for number in range(count))


def measure_burst(
    options: argparse.Namespace, folder: Path, *, ask: bool = False, trace: bool = False, last: bool = False
) -> Seen:
    """Measure one burst of a daemon. After the `last` one, also measure requests and the idle cost."""
    due = int(time.time() + options.lead) + 1
    with running(folder, due_jobs(options.jobs, due)) as (daemon, ready):
        if time.time() > due - QUIET - 0.2:
            raise RuntimeError(f"the daemon was ready too late: give it more time with --lead (now {options.lead:g})")
        rss = daemon.memory()
        with contextlib.ExitStack() as helpers:
            syncs = helpers.enter_context(counting_syncs(daemon)) if trace else []
            asking = helpers.enter_context(helper("ask", daemon.socket, str(due))) if ask else None
            commits = WalCommits(daemon.history)
            sleep_until(due - QUIET / 2)
            commits.look()
            commits.commits = 0
            before = daemon.cpu_seconds()
            await_end(daemon, options.jobs, due, commits)
            own = daemon.cpu_seconds() - before
            asked = sorted(json.loads(end_of(asking))) if asking else []
        burst, rows, lost, doubled = read_history(daemon.history, options.jobs, due, own)
        peak = daemon.memory("VmHWM")
        return Seen(
            ready, rss, peak, burst, rows, lost, doubled, commits.commits, commits.resets, asked,
            syncs[0] if syncs else None, after_burst(options, daemon) if last else [],
        )  # fmt: skip


def after_burst(options: argparse.Namespace, daemon: Daemon) -> list[str]:
    """Measure requests per second and the idle cost. Return lines to print."""
    lines = []
    if options.list:
        before = daemon.cpu_seconds()
        with helper("crowd", daemon.socket, str(options.connections), str(options.seconds)) as crowd:
            told = json.loads(crowd.communicate(timeout=60)[0])
        cpu = daemon.cpu_seconds() - before
        lines.append(
            f"list of {options.jobs} jobs: {told['requests'] / told['seconds']:.0f} requests/s on "
            f"{options.connections} connections ({told['size'] / 1000:.0f} kB an answer; the caller used "
            f"{told['cores']:.2f} cores, schedulerd {cpu / told['seconds']:.2f})"
        )
    if options.idle:
        lines.append(f"idle after the burst: {idleness(daemon, options.idle)}")
    return lines


# The rounds and the tables


@dataclass
class Round:
    """One round: the limits, and schedulerd."""

    limit: Burst | None
    limit_with_output: Burst | None
    floor: Burst
    alone: Seen

    def limits(self) -> tuple[Burst | None, ...]:
        """Return the limits with which schedulerd is compared."""
        return self.limit, self.limit_with_output, self.floor

    def ratios(self) -> list[float]:
        """Return the ratios of the p99 lateness of schedulerd to that of the C limits and of the Python floor."""
        mine = percentile(self.alone.burst.late, 99)
        return [mine / percentile(burst.late, 99) if burst else math.nan for burst in self.limits()]


def typical(bursts: Sequence[Burst | None]) -> Burst | None:
    """Return the burst with the median p99."""
    found = sorted(filter(None, bursts), key=lambda burst: percentile(burst.late, 99))
    return found[len(found) // 2] if found else None


def measure(options: argparse.Namespace, folder: Path) -> int:
    """Measure and print all figures. Return the exit status."""
    make_bytecode()
    print_machine(folder)
    say()
    rounds = []
    for number in range(options.rounds):
        limit, with_output = c_limit(folder, options.jobs), c_limit(folder, options.jobs, keeps_output=True)
        floor = python_floor(folder, options.jobs)
        rounds.append(Round(limit, with_output, floor, measure_burst(options, folder / f"d{number}")))
    asked = measure_burst(options, folder / "asked", ask=True, last=True)
    bursts = {
        "C limit, 4 threads": typical([each.limit for each in rounds]),
        "... with sessions and output": typical([each.limit_with_output for each in rounds]),
        "Python floor": typical([each.floor for each in rounds]),
        "schedulerd": typical([each.alone.burst for each in rounds]),
        "schedulerd, asked meanwhile": asked.burst,
    }
    heads = ["p50 ms", "p99 ms", "max ms", "span s", "runs/s", "CPU s/1000: own", "with children"]
    print_table([f"{options.jobs} due at once", *heads], [burst.cells(name) for name, burst in bursts.items() if burst])
    say()
    print_rounds(options.jobs, rounds)
    print_asked(asked)
    everything = [*(each.alone for each in rounds), asked]
    if options.strace:
        everything.append(traced := measure_burst(options, folder / "traced", trace=True))
        say(f"{traced.syncs} calls of fsync or fdatasync, {traced.commits} commits, in a burst that strace slowed down")
    for line in measure_fleet(folder / "fleet", options.fleet, options.idle) if options.fleet else ():
        say(line)
    return 1 if any(one.lost or one.doubled for one in everything) else 0


def print_rounds(count: int, rounds: Sequence[Round]) -> None:
    """Print the measurements of each round for which the table has no column."""
    by_limit = zip(*(each.ratios() for each in rounds), strict=True)
    for what, ratios in zip(("C limit", "C limit with sessions and output", "Python floor"), by_limit, strict=True):
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        say(f"p99 lateness is {sorted(ratios)[len(ratios) // 2]:.2f} × the {what}'s (rounds: {each})")
    for seen in (each.alone for each in rounds):
        say(
            f"{seen.rows} rows for {count} jobs: LOST {seen.lost}, DOUBLE {seen.doubled}; {commits_of(seen)}; "
            f"ready after {seen.ready:.3f} s, RSS {seen.rss:.1f} MB, at most {seen.peak:.1f} MB"
        )


def commits_of(seen: Seen) -> str:
    """Return the number of observed commits, as text."""
    reset = f" at least (checkpoints let the log begin anew {seen.resets} times)" if seen.resets else ""
    return f"{seen.commits} commits{reset}"


def print_asked(seen: Seen) -> None:
    """Print the response times of the caller during the burst, and the measurements after it."""
    p50, p99, last = (percentile(seen.asked, share) for share in (50, 99, 100))
    say(f"asked meanwhile: LOST {seen.lost}, DOUBLE {seen.doubled}; {commits_of(seen)}, at most {seen.peak:.1f} MB")
    say(f"list of jobs during the burst: p50 {p50:.1f} ms, p99 {p99:.1f}, max {last:.1f} ({len(seen.asked)} requests)")
    for line in seen.after:
        say(line)


# The options


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description="Measure a burst of jobs against the bare limit of this machine.")
    made.add_argument("--jobs", type=int, default=1000, help="how many are due at once (%(default)s)")
    made.add_argument("--lead", type=float, help="seconds from start to burst (default: 2.5, more for more jobs)")
    made.add_argument("--rounds", type=int, default=3, help="of limits and bursts (%(default)s)")
    made.add_argument("--idle", type=float, default=10, help="seconds of idleness to measure; 0 is none (%(default)s)")
    made.add_argument("--list", action=argparse.BooleanOptionalAction, default=True, help="measure requests a second")
    made.add_argument("--connections", type=int, default=16, help="of the callers of --list (%(default)s)")
    made.add_argument("--seconds", type=float, default=3, help="how long they call (%(default)s)")
    made.add_argument("--fleet", type=int, default=10_000, help="so many jobs that aren't due; 0 is none (%(default)s)")
    made.add_argument("--strace", action="store_true", help="another burst in which strace counts fsync and fdatasync")
    made.add_argument("--dir", help="where the temporary folder is made (default: the system's)")
    return made


def stop_on_signal(number: int, _frame: Any) -> None:
    """Convert a signal into an exit with cleanup."""
    sys.exit(128 + number)


def main() -> int:
    """Run the benchmark. Return the exit status."""
    options = parser().parse_args()
    options.lead = options.lead or 2.5 + options.jobs / 2000
    options.strace = options.strace and shutil.which("strace") is not None
    signal.signal(signal.SIGTERM, stop_on_signal)
    signal.signal(signal.SIGHUP, stop_on_signal)
    try:
        with tempfile.TemporaryDirectory(prefix="burst-", dir=options.dir) as folder:
            return measure(options, Path(folder))
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"burst: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
