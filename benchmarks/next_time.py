"""The cost of computing the next time of a job, compared with cronsim and croniter, and of refusing one that is never due.

    .venv/bin/python benchmarks/next_time.py [ROUNDS]

200 ordinary expressions in Europe/Rome are evaluated at instants that are distributed over a year. A figure is the median
over the expressions of the best round, so that other load on the machine affects all of them equally.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from croniter import croniter
from cronsim import CronSim

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from figures import print_table, say

from schedulerd.core.errors import TriggerError
from schedulerd.engine.planner import Planner
from schedulerd.engine.timetable import Timetable
from schedulerd.triggers.factory import CronTrigger, trigger_from
from tests.support.manual_clock import ManualClock

ROME = "Europe/Rome"
START = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS = 50
EXPRESSIONS = 200
IMPOSSIBLE = (
    {"cron": "0 0 30 2 *"}, {"cron": "0 0 31 4,6,9,11 *"}, {"cron": "0 0 */31 * mon#2"}, {"cron": "0 0 0 30 2 *"},
    {"calendar": "*-02-30"}, {"calendar": "Mon *-02~29/3,30"}, {"calendar": "Fri 2026-12-24 08:00"},
)  # fmt: skip


def ordinary(rng: random.Random) -> str:
    """Return an ordinary expression."""
    minute, hour = str(rng.randrange(60)), str(rng.randrange(24))
    return rng.choice(
        [
            "* * * * *", f"*/{rng.choice([2, 5, 10, 15, 20, 30])} * * * *", f"{minute} * * * *", f"{minute} {hour} * * *",
            f"{minute} {hour} * * *", f"{minute} {hour} * * mon-fri", f"{minute} {hour} * * {rng.randrange(7)}",
            f"{minute} {hour} {rng.randint(1, 28)} * *", f"{minute} 8-18 * * 1-5", f"*/15 {hour} * * *",
            f"{minute} {hour} 1,15 * *", f"{minute} */{rng.choice([2, 3, 4, 6])} * * *", f"{minute} {hour} 1 */3 *",
        ]
    )  # fmt: skip


def microseconds(ask: Callable[[datetime], object], moments: Iterable[datetime]) -> float:
    """Return the mean cost of one call."""
    asked = list(moments)
    start = time.perf_counter()
    for at in asked:
        ask(at)
    return (time.perf_counter() - start) / len(asked) * 1e6


def askers(expression: str) -> dict[str, Callable[[datetime], object]]:
    """Return, for each library, a function that computes the next time after an instant."""
    trigger, rome = CronTrigger(expression, ROME), ZoneInfo(ROME)
    return {
        "schedulerd": trigger.next_after,
        "cronsim": lambda at: next(CronSim(expression, at.astimezone(rome))),
        "croniter": lambda at: croniter(expression, at.astimezone(rome)).get_next(datetime),
    }


def compare(rounds: int) -> None:
    """Print the cost of a call for each library, and its ratio to ours."""
    rng = random.Random(7)
    expressions = [ordinary(rng) for _ in range(EXPRESSIONS)]
    moments = [START + timedelta(seconds=rng.randrange(365 * 86400)) for _ in range(MOMENTS)]
    best: dict[str, list[float]] = {}
    for expression in expressions:
        for name, ask in askers(expression).items():
            few = moments if name == "schedulerd" else moments[:10]
            best.setdefault(name, []).append(min(microseconds(ask, few) for _ in range(rounds)))
    ours = statistics.median(best["schedulerd"])
    rows = [
        [name, f"{statistics.median(costs):.1f}", f"{sorted(costs)[int(len(costs) * 0.95)]:.1f}",
         f"{statistics.median(costs) / ours:.1f}"]
        for name, costs in best.items()
    ]  # fmt: skip
    print_table(["next time, µs", "median", "p95", "× ours"], rows)


def others() -> None:
    """Print the cost of other kinds of triggers, with all adjustments."""
    rng = random.Random(7)
    moments = [START + timedelta(seconds=rng.randrange(365 * 86400)) for _ in range(MOMENTS)]
    rules = {
        "calendar": {"calendar": "Mon..Fri *-*-* 06..20:00/15"},
        "every": {"every": "10m"},
        "phrase": {"every": "monday at 09:30"},
        "random phrase": {"every": "5 to 10 minutes"},
        "cron, 6 fields": {"cron": "*/10 30 2 * * mon#2"},
        "cron, jitter": {"cron": "30 2 * * *", "jitter": "10m"},
        "cron, blackout": {"cron": "30 2 * * *", "blackout": ["sat..sun", "22:00..02:00"]},
    }
    rows = []
    for name, rule in rules.items():
        trigger = trigger_from(rule, ROME, seed="job")
        assert trigger is not None
        rows.append([name, f"{min(microseconds(trigger.next_after, moments) for _ in range(5)):.1f}"])
    print_table(["others, µs", "best mean"], rows)


def refuse() -> None:
    """Print the time that it takes to refuse a trigger that is never due."""
    rows = []
    for rule in IMPOSSIBLE:
        start = time.perf_counter()
        try:
            trigger_from(rule, ROME)
            verdict = "taken"
        except TriggerError as error:
            verdict = error.why
        rows.append([" ".join(rule.values()), f"{(time.perf_counter() - start) * 1000:.2f}", verdict])
    print_table(["never due", "ms", "verdict"], rows)


def ticks() -> None:
    """Print the cost of an iteration of the loop while no job is due, with few and with many jobs."""
    rows = []
    for count in (10, 1000, 10_000):
        clock = ManualClock(START)
        planner = Planner(Timetable(clock), clock, lambda _batch, _now: [])
        start = time.perf_counter()
        for number in range(count):
            planner.timetable.plan(f"job-{number}", CronTrigger(f"{number % 60} {number // 60 % 24} 2 6 *", ROME), START)
        planned = time.perf_counter() - start
        costs = []
        for _ in range(2000):
            begin = time.perf_counter()
            planner.run_pending()
            costs.append(time.perf_counter() - begin)
        rows.append([f"{count}", f"{planned * 1000:.0f}", f"{statistics.median(costs) * 1e6:.1f}"])
    print_table(["jobs, none due", "planned in ms", "µs a tick"], rows)


def main() -> None:
    """Print all figures."""
    compare(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    say()
    others()
    say()
    refuse()
    say()
    ticks()


if __name__ == "__main__":
    main()
