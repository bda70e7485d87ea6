"""Measure what `schedulerctl list` costs, beside a bare Python that imports what any such client needs.

    benchmarks/cli_start.py [--runs N] [--jobs N]

Both are started in turn, with compiled bytecode. The exit status is 1 if schedulerctl takes more than LIMIT times as long.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from figures import print_table, say
from target import running

LIMIT = 3.0
BARE = (sys.executable, "-c", "import argparse, http.client, json")
FOOTPRINT = """
{}
import sys
with open("/proc/self/status") as status:
    peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
print(len(sys.modules), peak, file=sys.stderr)
"""
LIST = "from schedulerd.cli.main import main; main()"


@dataclass(frozen=True)
class Cost:
    """The cost of one process: seconds from its start to its end, and CPU seconds."""

    seconds: float
    cpu: float


def cost_of(command: tuple[str, ...], environment: dict[str, str]) -> Cost:
    """Run a command to its end, and return its cost. Raise RuntimeError if it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command}: exit status {process.returncode}")
    return Cost(seconds, used.ru_utime + used.ru_stime)


def footprint_of(code: str, arguments: tuple[str, ...], environment: dict[str, str]) -> tuple[int, float]:
    """Return the number of modules that are loaded after `code` has run, and its peak memory in MB."""
    command = [sys.executable, "-c", FOOTPRINT.format(code), *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    modules, peak = done.stderr.split()
    return int(modules), int(peak) / 1024


def control_command() -> tuple[str, ...]:
    """Return the command that starts schedulerctl: its script if that is installed."""
    script = Path(sys.executable).parent / "schedulerctl"
    return (str(script),) if script.exists() else (sys.executable, "-m", "schedulerd.cli")


def median(costs: list[Cost], name: str) -> float:
    """Return the median of a figure."""
    return statistics.median(getattr(cost, name) for cost in costs)


def measure(socket: str, folder: str, runs: int) -> float:
    """Print the table. Return the ratio of the time of schedulerctl to that of bare Python."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTHONPYCACHEPREFIX"] = folder
    arguments = ("--socket", socket, "list")
    control = (*control_command(), *arguments)
    for command in (BARE, control):  # compiles the bytecode
        cost_of(command, environment)
    pairs = [(cost_of(BARE, environment), cost_of(control, environment)) for _ in range(runs)]
    bare, own = ([pair[place] for pair in pairs] for place in (0, 1))
    rows = []
    for name, costs, code in (("bare", bare, BARE[2]), ("schedulerctl list", own, LIST)):
        modules, memory = footprint_of(code, arguments, environment)
        times = (f"{median(costs, figure) * 1000:.1f} ms" for figure in ("seconds", "cpu"))
        rows.append((name, *times, f"{memory:.1f} MB", str(modules)))
    print_table(("", "time", "CPU", "memory", "modules"), rows)
    ratios = {figure: median(own, figure) / median(bare, figure) for figure in ("seconds", "cpu")}
    say(f"schedulerctl list takes {ratios['seconds']:.2f} x the time, {ratios['cpu']:.2f} x the CPU (limit: {LIMIT:g} x)")
    return ratios["seconds"]


def main() -> int:
    """Measure, print the results, and compare them with LIMIT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, help="how often both are started (%(default)s)")
    parser.add_argument("--jobs", type=int, default=20, help="how many jobs are listed (%(default)s)")
    options = parser.parse_args()
    jobs = "".join(f"  job-{number}: {{cron: '0 4 1 1 *', command: ['true']}}\n" for number in range(options.jobs))
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "daemon", jobs) as (daemon, _):
        ratio = measure(daemon.socket, f"{folder}/bytecode", options.runs)
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
