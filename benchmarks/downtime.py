"""The cost of a long downtime at the next start: 200 jobs that are due each minute, a daemon that was down for a week.

    .venv/bin/python benchmarks/downtime.py [JOBS]

The benchmark prints when the daemon is ready, when the first and the last job were caught up, the lateness of runs that
became due meanwhile, the CPU time that the daemon used until then, and the growth of its memory compared with a start
without a gap. (It needs gcc: the clock of the daemon is shifted as in the tests.)
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from figures import percentile, print_table

from tests.support.daemon import RunningDaemon
from tests.support.wallclock import WallClock

WEEK = 7 * 86400
START = datetime(2026, 6, 10, 1, 20, 55, tzinfo=UTC)


def jobs(count: int) -> dict[str, object]:
    """Return jobs that are due each minute, and one that is due each second, which must not be delayed."""
    made = {f"minutely{number}": {"cron": "* * * * *", "command": ["/bin/true"]} for number in range(count)}
    return {"tick": {"every": "1s", "command": ["/bin/true"]}, **made}


def used(daemon: RunningDaemon) -> tuple[float, float]:
    """Return the CPU seconds and the resident megabytes of the daemon itself."""
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    memory = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return (int(fields[11]) + int(fields[12])) / 100, int(memory.split()[1]) / 1024


def ask(daemon: RunningDaemon, sql: str) -> list[tuple[object, ...]]:
    """Return rows of the history."""
    connection = sqlite3.connect(f"file:{daemon.folder}/state/history.db?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def until_all_ran(daemon: RunningDaemon, count: int, since: int) -> list[float]:
    """Wait until each of the jobs has started since `since`. Return the times of the starts (Unix seconds), ascending."""
    started = f"FROM runs WHERE job_id LIKE 'minutely%' AND started_at > {since}"
    while ask(daemon, f"SELECT count(DISTINCT job_id) {started}") != [(count,)]:
        time.sleep(0.2)
    return [float(str(at)) / 1e6 for (at,) in ask(daemon, f"SELECT started_at {started} ORDER BY started_at")]


def measure(folder: Path, count: int) -> list[list[str]]:
    """Run the benchmark, and return the rows of the table."""
    clock = WallClock(folder, START)
    daemon = RunningDaemon(folder, {"jobs": jobs(count)}, clock.env)
    daemon.start()
    time.sleep(8)
    plain = used(daemon)[1]
    daemon.stop()
    clock.step(WEEK)
    began, began_at = time.monotonic(), clock.now().timestamp()
    daemon.start()
    ready, since = time.monotonic() - began, int((began_at - 1) * 1e6)
    starts = until_all_ran(daemon, count, since)
    cpu, memory = used(daemon)
    late = ask(
        daemon, f"SELECT (started_at - scheduled_at) / 1e6 FROM runs WHERE job_id = 'tick' AND scheduled_at > {since}"
    )
    lateness = [f"{percentile(sorted(float(str(seconds)) for (seconds,) in late), share) * 1000:.1f}" for share in (50, 99)]
    missed = ask(daemon, "SELECT count(*), sum(json_extract(details, '$.count')) FROM runs WHERE status = 'missed'")[0]
    daemon.stop()
    daemon.close()
    return [
        ["jobs", str(count)],
        ["ready after s", f"{ready:.2f}"],
        ["first caught up after s", f"{starts[0] - began_at:.2f}"],
        ["last caught up after s", f"{starts[-1] - began_at:.2f}"],
        ["missed rows, occurrences", f"{missed[0]}, {missed[1]}"],
        ["on time: lateness p50, p99 ms", ", ".join(lateness)],
        ["CPU s until then", f"{cpu:.2f}"],
        ["RSS MB (without a gap)", f"{memory:.1f} ({plain:.1f})"],
    ]


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        rows = measure(Path(name), int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    print_table(["after a week", "figure"], rows)


if __name__ == "__main__":
    main()
