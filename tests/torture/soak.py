"""A steady load for hours: what the daemon and its keepers hold is sampled, and whether it grows is told."""

from __future__ import annotations

import argparse
import os
import time
from contextlib import suppress
from pathlib import Path

from tests.torture.campaign import SETTLE_SECONDS, Bench, finish
from tests.torture.world import World

EVERY = 10.0
COLUMNS = ("seconds", "who", "descriptors", "threads", "rss_kib", "pss_kib", "zombies")


def run(chosen: argparse.Namespace) -> int:
    """Run a daemon under load, and print what became of it; return 1 when the judge finds a fault."""
    bench = Bench(chosen.evidence.absolute(), chosen.store == "postgresql")
    samples: list[tuple[float, str, int, int, int, int, int]] = []
    world = bench.world(chosen.rate, is_postgres=bench.postgres is not None)
    try:
        world.start()
        with (bench.folder / "soak.tsv").open("w", buffering=1) as file:
            print(*COLUMNS, sep="\t", file=file)
            begin = time.monotonic()
            while (passed := time.monotonic() - begin) < chosen.seconds:
                fresh = [(round(passed, 1), who, *held(pid)) for who, pid in processes(world)]
                samples += fresh
                for line in fresh:
                    print(*line, sep="\t", file=file)
                _ask(world)
                _tend(world, begin + passed + EVERY)
        outcome = finish(world, SETTLE_SECONDS)
    finally:
        bench.leave(world)
    print(summary(samples))
    print(f"{outcome.due} due, {outcome.starts} starts, {len(outcome.faults)} faults; samples in {bench.folder}/soak.tsv")
    for fault in outcome.faults[:20]:
        print(f"    {fault}")
    bench.close()
    return int(bool(outcome.faults))


def _tend(world: World, until: float) -> None:
    while time.monotonic() < until:
        world.tend()
        time.sleep(0.2)


def _ask(world: World) -> None:
    """Ask as a monitoring system would."""
    with suppress(Exception):
        world.daemon.client.get("health")
        world.daemon.client.get("jobs")
        world.daemon.client.get("stats")


def processes(world: World) -> list[tuple[str, int]]:
    """Return the daemon and its keepers, by name."""
    found = [("daemon", world.pid)] if world.pid is not None else []
    return [*found, *((f"keeper {_folder(pid)}", pid) for pid in world.keepers())]


def _folder(pid: int) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return next(os.path.basename(word.decode()) for word in words if b"/keeper/" in word)
    return "?"


def held(pid: int) -> tuple[int, int, int, int, int]:
    """Return how many descriptors, threads and KiB a process has, and how many zombies."""
    try:
        status = _fields(f"/proc/{pid}/status")
        rollup = _fields(f"/proc/{pid}/smaps_rollup")
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0, 0, 0, 0, 0
    return descriptors, status["Threads"], status["VmRSS"], rollup["Pss"], _zombies(pid)


def _fields(path: str) -> dict[str, int]:
    pairs = (line.split(":", 1) for line in Path(path).read_text().splitlines() if ":" in line)
    return {name: int(words[0]) for name, value in pairs if (words := value.split()) and words[0].isdigit()}


def _zombies(pid: int) -> int:
    """Return how many children wait to be reaped."""
    number = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            with suppress(OSError):
                number += Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return number


def slope(points: list[tuple[float, float]]) -> float:
    """Return by how much a value grows in an hour: the line of least squares through it."""
    if len(points) < 2:
        return 0.0
    x_mean = sum(x for x, _ in points) / len(points)
    y_mean = sum(y for _, y in points) / len(points)
    width = sum((x - x_mean) ** 2 for x, _ in points)
    return 3600 * sum((x - x_mean) * (y - y_mean) for x, y in points) / width if width else 0.0


def summary(samples: list[tuple[float, str, int, int, int, int, int]]) -> str:
    """Return for each process what it held, after the first quarter."""
    last = max(sample[0] for sample in samples)
    lines = ["who                  descriptors  threads  zombies  RSS MiB        RSS MiB/h  PSS MiB/h"]
    for who in dict.fromkeys(sample[1] for sample in samples):
        own = [sample for sample in samples if sample[1] == who and sample[0] >= last / 4 and sample[3]]
        if not own:
            continue
        spans = [f"{min(values)}..{max(values)}" for values in zip(*(each[2:4] for each in own), strict=True)]
        rss = [each[4] / 1024 for each in own]
        slopes = [slope([(each[0], each[place] / 1024) for each in own]) for place in (4, 5)]
        lines.append(
            f"{who:20} {spans[0]:>11}  {spans[1]:>7}  {max(each[6] for each in own):>7}  "
            f"{min(rss):.1f}..{max(rss):<8.1f} {slopes[0]:>+9.2f}  {slopes[1]:>+9.2f}"
        )
    return "\n".join(lines)
