"""The built-in jobs against real servers and files."""

import signal
import sqlite3
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from schedulerd.builtin.analytics import bounds, summary
from schedulerd.store import Ended
from tests.support.waiting import until


def health_of(running, job="health"):
    return running.client.post(f"jobs/{job}/trigger").body["result"]["details"]


def test_postgresql_and_redis_are_probed_with_latency(daemon, postgres, redis_server):
    check = {"postgresql": "main", "redis": redis_server.url, "storage": ["state"]}
    running = daemon({"health": {"health_check": check}}, sources={"main": postgres.url}).start()
    details = health_of(running)

    assert details["status"] == "healthy"
    assert details["services"]["postgresql"]["version"].split(".")[0].isdigit()
    assert details["services"]["postgresql"]["in_recovery"] is False
    assert details["services"]["redis"]["role"] == "master"
    assert all(one["latency_ms"] > 0 for one in details["services"].values())


def test_servers_that_are_gone_are_unhealthy_and_say_why(daemon, tmp_path):
    check = {"postgresql": {"env": "PG"}, "redis": f"unix://{tmp_path}/none", "probe_timeout": "2s"}
    env = {"PG": f"postgresql://u:s3cret@/db?host={tmp_path}"}
    running = daemon({"health": {"health_check": check}}, env=env).start()
    details = health_of(running)

    assert details["status"] == "unhealthy"
    for name in ("postgresql", "redis"):
        assert details["services"][name]["status"] == "unhealthy"
        assert details["services"][name]["error"]
    assert "s3cret" not in str(running.client.get("health")) + running.log()
    assert running.client.get("health")["status"] == "unhealthy"


def test_a_server_that_hangs_costs_its_timeout_and_no_more(daemon, redis_server):
    running = daemon({"health": {"health_check": {"redis": redis_server.url, "probe_timeout": "0.5s"}}}).start()
    redis_server.process.send_signal(signal.SIGSTOP)
    details = health_of(running)

    assert details["services"]["redis"]["status"] == "unhealthy"
    assert details["services"]["storage"]["status"] == "healthy"


def test_a_folder_that_is_not_there_is_unhealthy(daemon):
    running = daemon({"health": {"health_check": {"storage": ["/no/such/folder"]}}}).start()

    assert "No such file" in str(health_of(running)["services"]["storage"]["paths"]["/no/such/folder"]["error"])


def test_a_full_folder_is_degraded(daemon):
    running = daemon({"health": {"health_check": {"min_free_percent": 100}}}).start()

    assert health_of(running)["status"] == "degraded"


def test_health_without_any_check_is_checked_when_it_is_asked(daemon):
    health = daemon({"a": {"shell": "true"}}).start().client.get("health")

    assert health["status"] in ("healthy", "degraded")
    assert health["job_id"] is None


def test_cleanup_deletes_old_runs_with_their_output(daemon):
    jobs = {"talk": {"shell": "echo hello"}, "clean": {"cleanup": {"older_than": 0, "batch": 2}}}
    running = daemon(jobs).start()
    for _ in range(5):
        running.client.post("jobs/talk/trigger")
    body = running.client.post("jobs/clean/trigger").body

    assert body["result"]["records_processed"] == 4
    assert body["result"]["details"] == {
        "runs": 4, "outputs": 4, "freed_bytes": 4 * 4096, "dry_run": False,
        "message": "deleted 4 runs and 4 outputs (16384 bytes)",
    }  # fmt: skip
    assert len(running.history("talk")) == 1
    assert len(list((running.folder / "state" / "output").rglob("*.log"))) == 1


def test_analytics_of_past_days_can_be_made_again(daemon):
    running = daemon({"stats": {"analytics": {"days": 2}}}).start()
    first, second = (running.client.post("jobs/stats/trigger").body for _ in range(2))

    assert first["status"] == second["status"] == "success"
    assert first["result"]["details"]["days"] == second["result"]["details"]["days"]
    assert len(first["result"]["details"]["days"]) == 2


def test_a_day_begins_and_ends_where_its_zone_says():
    start, end = bounds(date(2026, 3, 29), ZoneInfo("Europe/Rome"))

    assert (start, end) == (datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC))


def test_a_summary_counts_by_status_and_ranks_durations():
    rows = [Ended("a", "success", float(n), n / 10, 2) for n in range(1, 101)] + [Ended("a", "skipped", None, None, 0)]
    (found,) = summary("2026-03-29", rows)

    assert found.runs == {"success": 100, "skipped": 1}
    assert (found.duration_p50, found.duration_p95, found.lateness_p99, found.records_processed) == (50, 95, 9.9, 200)


def test_analytics_writes_what_happened_on_the_day(daemon):
    running = daemon({"stats": {"analytics": {"days": 1}}, "talk": {"shell": "true"}}).start()
    running.client.post("jobs/talk/trigger")
    running.stop()
    path = running.folder / "state" / "history.db"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE runs SET finished_at = finished_at - 86400000000")
    connection.close()
    running.start()
    running.client.post("jobs/stats/trigger")

    def rows():
        with sqlite3.connect(path) as connection:
            found = connection.execute("SELECT job_id, runs FROM daily_stats").fetchall()
        connection.close()
        return found

    assert until(rows, "the day") == [("talk", '{"success":1}')]
