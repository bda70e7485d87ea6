"""The cost of schedulerd when no job is due, and the start of a fleet of such jobs."""

from __future__ import annotations

import time
from pathlib import Path

from limits import PROGRAM
from target import Daemon, running


def idleness(daemon: Daemon, seconds: float) -> str:
    """Return the cost of a daemon while no job is due, as text."""
    before = daemon.cpu_seconds()
    time.sleep(seconds)
    used = daemon.cpu_seconds() - before
    return f"{used:.4f} CPU s in {seconds:g} s ({used / seconds * 60:.4f} a minute), RSS {daemon.memory():.1f} MB"


def cron_jobs(count: int) -> str:
    """Return the YAML of jobs that are due once a year, none of them in the month after this one."""
    month = time.gmtime().tm_mon % 12
    months = [(month + ahead) % 12 + 1 for ahead in range(1, 10)]
    times = (f"{number % 60} {number // 60 % 24} 2 {months[number % 9]} *" for number in range(count))
    return "".join(f"  job-{number}: {{cron: '{at}', command: [{PROGRAM}]}}\n" for number, at in enumerate(times))


def measure_fleet(folder: Path, count: int, idle: float) -> list[str]:
    """Start a daemon with many jobs that are not due, twice: with an empty history, and with the one that it left."""
    with running(folder, cron_jobs(count)) as (daemon, first):
        daemon.stop()
        again = daemon.start()
        took = f"ready after {first:.2f} s the first time, {again:.2f} s then"
        lines = [f"{count} cron jobs: {took}; RSS {daemon.memory():.1f} MB"]
        if idle:
            lines.append(f"idle with {count} jobs: {idleness(daemon, idle)}")
    return lines
