"""What a history of many runs costs to ask: makes one, and measures the questions that the API asks.

    .venv/bin/python benchmarks/history.py [--runs 10000000] [--jobs 1000] [--keep FILE] [sqlite|postgresql]

In SQLite, rows are made as the first schema of this program had them and then migrated, so the time that an upgrade of such
a history takes is told as well. Medians of 50, each of another job; the first touches of a cold cache are in the largest.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psycopg
from figures import percentile, print_table, say
from machine import print_machine

from schedulerd.core.models import from_micros, new_run_id, to_micros
from schedulerd.store.postgres.store import PostgresStore
from schedulerd.store.protocol import Store
from schedulerd.store.queries import load_migrations
from schedulerd.store.sqlite.store import SqliteStore
from tests.support.servers import PostgresServer

YEAR = 365 * 86400.0
NOW = datetime(2026, 11, 1, tzinfo=UTC)
OF_A_THOUSAND = {"success": 930, "failed": 30, "skipped": 25, "timed_out": 8, "missed": 5, "abandoned": 2}
STATUSES = [status for status, count in OF_A_THOUSAND.items() for _ in range(count)]
COLUMNS = (
    "run_id, job_id, scheduled_at, attempt, origin, status, queued_at, started_at, finished_at, duration_seconds, "
    "exit_code, records_processed, error_message, details, node, actor, idempotency_key"
)
Row = tuple[Any, ...]
INSTANTS = (2, 6, 7, 8)  # the columns that contain times
COUNTED_BY_POSTGRES = """
INSERT INTO run_counts SELECT left(run_id, 7), status, node, count(*) FROM runs GROUP BY 1, 2, 3;
INSERT INTO run_counts SELECT '', status, node, sum(number) FROM run_counts GROUP BY status, node;
INSERT INTO lateness_counts
SELECT left(run_id, 7), lateness_class(scheduled_at, started_at), node, count(*) FROM runs
WHERE scheduled_at IS NOT NULL AND started_at > (SELECT max(started_at) - interval '7 days' FROM runs) GROUP BY 1, 2, 3
"""


def rows(jobs: int, runs: int) -> Iterator[Row]:
    """Yield rows in the order of their times: a year of jobs with equal intervals."""
    chance = random.Random(1)
    step = YEAR / runs
    for number in range(runs):
        at = NOW - timedelta(seconds=YEAR - number * step)
        yield row(f"job-{number % jobs:04}", at, chance)


def row(job_id: str, at: datetime, chance: random.Random) -> Row:
    """Return a row. The statuses have realistic probabilities."""
    status = chance.choice(STATUSES)
    due, late, took = to_micros(at), int(chance.expovariate(1 / 4000)), chance.lognormvariate(0, 1.5)
    run_id = new_run_id(at)
    if status in ("skipped", "missed"):
        return (run_id, job_id, due, 1, "schedule", status, due, None, due, None, None, 0, None,
                '{"reason":"the job is still running"}', "bench", None, None)  # fmt: skip
    details = f'{{"cpu_seconds":{took / 10:.4f},"peak_memory_bytes":9437184,"output_bytes":{int(took * 100)}}}'
    failed = status != "success"
    return (run_id, job_id, due, 1, "schedule", status, due, due + late, due + late + int(took * 1e6), took, int(failed),
            0, "exit status 1" if failed else None, details, "bench", None, None)  # fmt: skip


def fill_sqlite(path: str, jobs: int, runs: int) -> None:
    """Create a history with the first schema. The indexes are built after the rows."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-1000000", "temp_store=FILE"):
        connection.execute(f"PRAGMA {pragma}")
    number, _name, script = load_migrations("sqlite")[0]
    connection.executescript(script)
    indices = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
    connection.execute("BEGIN")
    for name, _sql in indices:
        connection.execute(f"DROP INDEX {name}")
    insert = f"INSERT INTO runs ({COLUMNS}) VALUES ({', '.join('?' * 17)})"
    connection.executemany(insert, rows(jobs, runs))
    for _name, sql in indices:
        connection.execute(sql)
    connection.executemany(
        "INSERT INTO jobs (job_id, rule, planned_since) VALUES (?, 'every: 1h', 0)", ((f"job-{n:04}",) for n in range(jobs))
    )
    connection.execute("COMMIT")
    connection.execute(f"PRAGMA user_version = {number}")
    connection.close()


def fill_postgres(url: str, jobs: int, runs: int) -> None:
    """Create a history with COPY. The tables exist. Indexes and counts are created after the rows."""
    with psycopg.connect(url) as connection:
        connection.execute("SET search_path = schedulerd; SET maintenance_work_mem = '1GB'")
        found = connection.execute("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'runs'").fetchall()
        indices = [(name, text) for name, text in found if name != "runs_pkey"]
        connection.execute("ALTER TABLE runs DISABLE TRIGGER USER")
        for name, _text in indices:
            connection.execute(f"DROP INDEX {name}")
        with connection.cursor().copy(f"COPY runs ({COLUMNS}) FROM STDIN") as copy:
            for one in rows(jobs, runs):
                copy.write_row([from_micros(value) if column in INSTANTS and value is not None else value
                                for column, value in enumerate(one)])  # fmt: skip
        for _name, text in indices:
            connection.execute(text)
        connection.execute(COUNTED_BY_POSTGRES)
        connection.execute("ALTER TABLE runs ENABLE TRIGGER USER")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE) schedulerd.runs")
        connection.execute("ANALYZE schedulerd.run_counts; ANALYZE schedulerd.lateness_counts")


def timed(call: Callable[[], Any]) -> float:
    """Return the duration of a call in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def questions(store: Store, jobs: int) -> dict[str, Callable[[str], Any]]:
    """Return the queries of the API, each as a function of a job."""
    every = [f"job-{number:04}" for number in range(jobs)]
    day = NOW - timedelta(days=1)

    def deep(job_id: str) -> Any:
        return store.history(job_id, 100, before=new_run_id(NOW - timedelta(days=180)))

    def stats(_job_id: str) -> Any:
        return store.counts(), store.counts(day), store.lateness(day)

    return {
        "a job's last 100 runs": lambda job_id: store.history(job_id, 100),
        "a page half a year ago (before=)": deep,
        "a job's last 100 failures": lambda job_id: store.history(job_id, 100, statuses=["failed", "timed_out"]),
        "the last 100 runs of all jobs": lambda _job_id: store.recent(100),
        "stats": stats,
        f"last results of {jobs} jobs": lambda _job_id: store.last_results(every),
        f"last occurrences of {jobs} jobs": lambda _job_id: store.last_occurrences(every),
        "a day of a job's ledger": lambda job_id: store.occurrences(job_id, day, 1000),
        "what is unfinished": lambda _job_id: store.unfinished(),
        "the jobs' newest 20 durations": lambda _job_id: store.durations(every, 20),
    }


def measure(store: Store, jobs: int) -> None:
    """Run the queries, and print medians in milliseconds."""
    table = []
    for name, ask in questions(store, jobs).items():
        took = sorted(timed(lambda ask=ask, n=n: ask(f"job-{n * 7919 % jobs:04}")) * 1000 for n in range(50))  # type: ignore[misc]
        table.append([name, f"{percentile(took, 50):.2f}", f"{percentile(took, 99):.2f}"])
    print_table(["question", "median ms", "largest ms"], table)


def main() -> None:
    """Create a history, migrate it, and measure queries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000_000)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--keep", metavar="FILE", help="where the SQLite history is, and stays; one that is there is used")
    parser.add_argument("backend", nargs="?", choices=("sqlite", "postgresql"), default="sqlite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print_machine(Path(folder))
        if options.backend == "postgresql":
            on_postgres(options.jobs, options.runs)
        else:
            on_sqlite(Path(options.keep or f"{folder}/history.db"), options.jobs, options.runs)


def on_sqlite(path: Path, jobs: int, runs: int) -> None:
    """Create a history in a SQLite file unless it exists, and measure queries."""
    if not path.exists():
        took = timed(lambda: fill_sqlite(str(path), jobs, runs))
        say(f"{runs} runs of {jobs} jobs made in {took:.0f} s, {path.stat().st_size / 1e9:.2f} GB")
    start = time.perf_counter()
    store = SqliteStore(str(path))
    say(f"opened and migrated in {time.perf_counter() - start:.1f} s, {path.stat().st_size / 1e9:.2f} GB")
    measure(store, jobs)
    store.close()


def on_postgres(jobs: int, runs: int) -> None:
    """Create a history in a separate PostgreSQL server, and measure queries."""
    server = PostgresServer()
    try:
        store = PostgresStore(server.url)
        took = timed(lambda: fill_postgres(server.url, jobs, runs))
        say(f"{runs} runs of {jobs} jobs made in {took:.0f} s")
        measure(store, jobs)
        store.close()
    finally:
        server.close()


if __name__ == "__main__":
    main()
