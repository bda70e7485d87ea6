"""A thousand jobs due at the same second: all of them, each once, in a few commits. How quick it is says benchmarks/."""

import sqlite3
import time

from tests.support.waiting import until

JOBS = 1000


def test_a_thousand_jobs_of_one_second_all_start_once(daemon, tmp_path):
    due = int(time.time()) + 5  # intervals are counted from 1970: this one is due then, and not again for decades
    running = daemon({f"job{number}": {"every": due, "command": ["/bin/true"]} for number in range(JOBS)}).start()
    assert time.time() < due, "the machine is too slow to be ready in time"
    until(lambda: running.client.get("stats")["runs_by_status"]["success"] == JOBS, "all successes", 60)

    assert running.client.get("running") == []
    assert {job["last_result"]["status"] for job in running.client.get("jobs")} == {"success"}
    running.stop()
    with sqlite3.connect(running.folder / "state" / "history.db") as connection:
        rows = connection.execute(
            "SELECT count(*), count(DISTINCT job_id), min(scheduled_at), max(scheduled_at) FROM runs"
        ).fetchone()
    connection.close()
    assert rows == (JOBS, JOBS, due * 1_000_000, due * 1_000_000)
