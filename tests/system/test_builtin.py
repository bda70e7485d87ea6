"""The built-in jobs against real servers and files."""

import http.server
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
import pytest
import redis

from schedulerd.actions.analytics import anomalies, bounds, merged, new_days, summary
from schedulerd.store.protocol import DailyFigures, EndedRun
from tests.support.waiting import until


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ok" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def dripping():
    """A page whose body comes a byte at a time and without end; `.gone` is set once nobody takes it any more."""

    class Dripping(Pages):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while not self.server.is_over.wait(0.05):
                    self.wfile.write(b".")
                return
            self.server.gone.set()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    server.gone, server.is_over = threading.Event(), threading.Event()
    threading.Thread(target=server.serve_forever).start()
    yield server
    server.is_over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def http_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.port = server.server_address[1]
    server.url = f"http://127.0.0.1:{server.port}"
    threading.Thread(target=server.serve_forever).start()
    yield server
    server.shutdown()
    server.server_close()


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


def test_a_server_that_stops_between_two_answers_costs_its_timeout_and_no_thread(daemon, postgres):
    check = {"targets": {"slow": {"postgresql": postgres.url, "timeout": "0.7s"}}}
    running = daemon({"health": {"health_check": check}}).start()
    assert health_of(running)["services"]["slow"]["status"] == "healthy"
    pids = [int(line) for line in (postgres.folder / "data" / "postmaster.pid").read_text().splitlines()[:1]]
    os.kill(pids[0], signal.SIGSTOP)
    try:
        answers = [health_of(running)["services"]["slow"] for _ in range(3)]
    finally:
        os.kill(pids[0], signal.SIGCONT)

    assert [one["status"] for one in answers] == ["unhealthy"] * 3
    assert len(os.listdir(f"/proc/{running.process.pid}/task")) < 30
    until(lambda: health_of(running)["services"]["slow"]["status"] == "healthy", "the server is well again")


def test_a_page_that_drips_without_end_is_cut_off_after_its_timeout(daemon, dripping):
    page = {"http": f"http://127.0.0.1:{dripping.server_address[1]}/", "timeout": "0.5s"}
    running = daemon({"health": {"health_check": {"targets": {"page": page}}}}).start()

    assert "no answer within" in health_of(running)["services"]["page"]["error"]
    assert dripping.gone.wait(20), "the probe goes on"
    until(lambda: "no answer within" in health_of(running)["services"]["page"]["error"], "a new probe")


def test_figures_are_those_that_psql_and_redis_cli_tell(daemon, postgres, redis_server):
    running = daemon({"health": {"health_check": {"postgresql": postgres.url, "redis": redis_server.url}}}).start()
    services = health_of(running)["services"]
    sql = "SELECT current_setting('server_version'), current_setting('max_connections'), pg_database_size('postgres')"
    psql = subprocess.run(["psql", "-AtF|", postgres.url, "-c", sql], capture_output=True, text=True, check=True).stdout
    ask = ["redis-cli", "-s", redis_server.socket, "INFO"]
    info = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    told = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)

    found = services["postgresql"]
    assert psql.strip().split("|") == [found["version"], str(found["max_connections"]), str(found["size_bytes"])]
    assert services["redis"]["version"] == told["redis_version"]
    assert str(services["redis"]["max_memory_bytes"]) == told["maxmemory"]


def test_a_wrong_password_is_unhealthy_and_not_told(daemon, postgres, redis_server):
    client = redis.Redis(unix_socket_path=str(redis_server.socket))
    client.config_set("requirepass", "s3cret-pass")
    client.close()
    targets = {
        f"{kind}_{word}": {kind: url(f"{word}-pass")}
        for kind, url in (
            ("postgresql", postgres.locked), ("redis", lambda word: f"unix://:{word}@{redis_server.socket}"),
        )
        for word in ("s3cret", "wr0ng")
    }  # fmt: skip
    running = daemon({"health": {"health_check": {"targets": targets}}}).start()
    until(lambda: health_of(running)["services"]["postgresql_wr0ng"]["status"] == "unhealthy", "the new rules of the server")
    services = health_of(running)["services"]

    well = [name for name in targets if services[name]["status"] == "healthy"]
    assert well == ["postgresql_s3cret", "redis_s3cret"]
    assert "password authentication failed" in services["postgresql_wr0ng"]["error"]
    assert "ng-pass" not in str(running.client.get("health")) + running.log()


@pytest.mark.root("needs root, to mount a small file system")
@pytest.mark.parametrize(
    ("spoil", "why"),
    [("dd if=/dev/zero of={}/x bs=1k 2>/dev/null", "No space left"), ("mount -o remount,ro {}", "read-only")],
)
def test_a_file_system_that_takes_no_data_is_unhealthy(tmp_path, spoil, why):
    call = "storage.probe_one(sys.argv[1], {}, 'r', Cut())"
    probe = f"import sys; from schedulerd.actions.probes import Cut, storage; print({call})"
    mount = f"mount -t tmpfs -o size=64k none {tmp_path} && {spoil.format(tmp_path)}"
    script = f'{mount}; {sys.executable} -c "{probe}" {tmp_path}'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )

    assert "'unhealthy'" in done.stdout, done
    assert why in done.stdout


def test_targets_have_names_thresholds_and_weight(daemon, postgres, tmp_path, http_server):
    targets = {
        "replica": {"postgresql": postgres.url, "max_connections_percent": 1},
        "shop": {"http": http_server.url + "/ok"},
        "gone": {"http": http_server.url + "/missing", "critical": False},
        "found": {"http": http_server.url + "/missing", "expect_status": ["404"]},
        "port": {"tcp": f"127.0.0.1:{http_server.port}"},
        "closed": {"tcp": "127.0.0.1:1", "critical": False},
        "disk": {"storage": str(tmp_path)},
        "late": {"http": http_server.url + "/ok", "max_latency": "0.001ms"},
    }
    with psycopg.connect(postgres.url), psycopg.connect(postgres.url):
        running = daemon({"health": {"health_check": {"targets": targets}}}).start()
        details = health_of(running)
    found = {name: details["services"][name]["status"] for name in targets}

    assert found == {
        "replica": "degraded", "shop": "healthy", "gone": "unhealthy", "found": "healthy", "port": "healthy",
        "closed": "unhealthy", "disk": "healthy", "late": "degraded",
    }  # fmt: skip
    assert details["status"] == "degraded"
    assert "use of connections" in details["services"]["replica"]["error"]
    assert "404" in details["services"]["gone"]["error"]


def test_a_change_is_told_with_since_when_and_outlives_the_daemon(daemon, tmp_path):
    folder = tmp_path / "data"
    running = daemon({"health": {"health_check": {"targets": {"disk": {"storage": str(folder)}}}}}).start()
    first = health_of(running)["services"]["disk"]
    running.stop()
    running.start()
    second = health_of(running)
    folder.mkdir()
    third = health_of(running)

    assert (first["status"], second["services"]["disk"]["since"], second["changes"]) == ("unhealthy", first["since"], [])
    (change,) = third["changes"]
    assert (change["service"], change["from"], change["to"]) == ("disk", "unhealthy", "healthy")
    assert third["services"]["disk"]["since"] == change["at"] > first["since"]
    assert "disk is healthy, was unhealthy" in running.log()
    points = running.client.get("health/history", limit=2)
    assert [point["services"]["disk"]["status"] for point in points] == ["healthy", "unhealthy"]
    assert running.client.get("health/history", before=points[1]["run_id"])[0]["services"]["disk"]["status"] == "unhealthy"


def test_an_outage_of_the_server_that_has_the_history_is_checked_told_and_kept(daemon, postgres):
    jobs = {"health": {"health_check": {"postgresql": postgres.url, "probe_timeout": "2s"}}}
    running = daemon(jobs, store=postgres.url, store_schema="watched").start()
    well = health_of(running)["services"]["postgresql"]
    postgres.stop()
    try:
        ended = running.client.post("jobs/health/trigger").body
        told = running.client.get("health")
        again = health_of(running)
    finally:
        postgres.start()
    found = ended["result"]["details"]["services"]
    gone = found["postgresql"]
    until(lambda: running.client.get("health")["scheduler"]["store"] == "ok", "the end of the outage")
    back = health_of(running)

    assert (well["status"], ended["status"], gone["status"]) == ("healthy", "success", "unhealthy")
    assert (told["status"], told["services"], told["job_id"]) == ("unhealthy", found, "health")
    assert again["services"]["postgresql"]["since"] == gone["since"] > well["since"]
    assert [(change["from"], change["to"]) for change in back["changes"]] == [("unhealthy", "healthy")]
    points = running.client.get("health/history")
    assert [(point["status"], len(point["changes"])) for point in reversed(points)] == [
        ("healthy", 0), ("unhealthy", 1), ("unhealthy", 0), ("healthy", 1),
    ]  # fmt: skip


def test_a_check_that_was_killed_hides_none_of_those_before(daemon):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says no word
        target = {"http": f"http://127.0.0.1:{silent.getsockname()[1]}/"}
        running = daemon({"health": {"health_check": {"probe_timeout": "1s", "targets": {"mute": target}}}}).start()
        first = health_of(running)
        with silent.accept()[0]:
            running.client.post("jobs/health/trigger?wait=0s")
            with silent.accept()[0]:
                running.kill()
        running.start()
        told = running.client.get("health")
        second = health_of(running)

    assert [row["status"] for row in running.history("health")] == ["success", "abandoned", "success"]
    assert (told["job_id"], told["services"]) == ("health", first["services"])
    assert (second["services"]["mute"]["since"], second["changes"]) == (first["services"]["mute"]["since"], [])


@pytest.mark.parametrize(("when", "status"), [("never", "success"), ("unhealthy", "failed"), ("degraded", "failed")])
def test_the_run_fails_when_it_is_asked_to(daemon, when, status):
    check = {"targets": {"disk": {"storage": "/no/such/folder"}}, "fail_when": when}
    running = daemon({"health": {"health_check": check}}).start()
    body = running.client.post("jobs/health/trigger").body

    assert (body["status"], body["result"]["details"]["status"]) == (status, "unhealthy")
    assert running.client.get("health")["status"] == "unhealthy"


def test_backups_that_are_too_old_missing_or_damaged_are_seen(daemon):
    jobs = {
        "health": {"health_check": {}},
        "b": {"backup": {"source": "history", "max_age": "1h"}},
        "c": {"backup": {"source": "history"}},
    }
    running = daemon(jobs).start()
    missing = health_of(running)["services"]["backups"]
    running.client.post("jobs/b/trigger")
    well = health_of(running)["services"]["backups"]
    (backup,) = running.client.get("backups")
    os.truncate(backup["path"], 10)
    damaged = health_of(running)

    assert missing["error"] == "b: there is no good backup that was made here"
    assert (well["status"], well["jobs"]["b"]["count"], well["jobs"]["c"]["count"]) == ("healthy", 1, 0)
    assert damaged["status"] == "degraded"
    assert "the file has 10 bytes" in damaged["services"]["backups"]["error"]
    running.client.post("jobs/b/trigger")
    (backup, _) = running.client.get("backups")
    manifest = Path(backup["path"] + ".json")
    manifest.write_text(manifest.read_text().replace(f'"created_at": "{backup["created_at"][:4]}', '"created_at": "2001'))
    assert "old, more than 1h" in health_of(running)["services"]["backups"]["error"]


def test_a_backup_that_is_dated_ahead_is_in_doubt_and_not_young_for_ever(daemon):
    running = daemon({"health": {"health_check": {}}, "b": {"backup": {"source": "history", "max_age": "1h"}}}).start()
    running.client.post("jobs/b/trigger")
    (backup,) = running.client.get("backups")
    manifest = Path(backup["path"] + ".json")
    manifest.write_text(manifest.read_text().replace(f'"created_at": "{backup["created_at"][:4]}', '"created_at": "2136'))
    found = health_of(running)["services"]["backups"]

    assert found["status"] == "degraded"
    assert "the clock was wrong" in found["error"]


def test_a_folder_of_backups_that_is_not_safe_hides_no_other_job(daemon, tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    jobs = {name: {"backup": {"source": "history", "directory": str(tmp_path / name)}} for name in ("open", "link", "safe")}
    jobs["safe"]["backup"]["max_age"] = "1h"
    found = health_of(daemon({"health": {"health_check": {}}, **jobs}).start())["services"]["backups"]

    assert found["status"] == "degraded"
    assert f"chmod go-w {tmp_path}/open" in found["jobs"]["open"]["error"]
    assert "symbolic link" in found["jobs"]["link"]["error"]
    assert (found["jobs"]["safe"]["count"], found["jobs"]["safe"]["error"]) == (
        0,
        "there is no good backup that was made here",
    )


def test_limits_that_cannot_be_kept_are_noted_and_nothing_is_unwell_for_them(daemon, monkeypatch):
    monkeypatch.setenv("SCHEDULERD_CGROUP", "/no/such/group")
    running = daemon({"big": {"shell": "true", "limits": {"memory": "1G", "core": 0}}, "small": {"shell": "true"}}).start()
    own = running.client.get("health")["scheduler"]

    assert (own["is_well"], own["limits_not_kept"]) == (True, {"big": ["memory"]})


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


def test_a_dry_cleanup_has_processed_nothing(daemon):
    running = daemon({"talk": {"shell": "echo hello"}, "clean": {"cleanup": {"older_than": 0, "dry_run": True}}}).start()
    for _ in range(3):
        running.client.post("jobs/talk/trigger")
    result = running.client.post("jobs/clean/trigger").body["result"]

    assert (result["records_processed"], result["details"]["runs"]) == (0, 2)
    assert result["details"]["message"].startswith("would delete 2 runs")


def test_analytics_of_past_days_can_be_made_again(daemon):
    running = daemon({"stats": {"analytics": {"days": 2}}}).start()
    first, second = (running.client.post("jobs/stats/trigger").body for _ in range(2))

    assert first["status"] == second["status"] == "success"
    assert first["result"]["details"]["days"] == second["result"]["details"]["days"]
    assert len(first["result"]["details"]["days"]) == 2
    assert first["result"]["details"]["message"] == "0 runs on 2 days; today is not included"


def test_a_day_begins_and_ends_where_its_zone_says():
    start, end = bounds(date(2026, 3, 29), ZoneInfo("Europe/Rome"))

    assert (start, end) == (datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC))


def test_a_summary_counts_by_status_and_ranks_durations():
    rows = [EndedRun("a", "success", float(n), n / 10, 2) for n in range(1, 101)] + [EndedRun("a", "skipped", None, None, 0)]
    (found,) = summary("2026-03-29", rows, "Europe/Rome")

    assert found.runs == {"success": 100, "skipped": 1}
    assert (found.duration_p50, found.duration_p95, found.lateness_p99, found.records_processed) == (50, 95, 9.9, 200)


def test_a_day_that_was_cleaned_up_is_not_counted_away():
    full = DailyFigures("2026-03-10", "a", {"success": 5}, 5, 1.0, 1.0, 0.0, 0.0)
    partly = DailyFigures("2026-03-10", "a", {"success": 2}, 2, 1.0, 1.0, 0.0, 0.0)
    more = DailyFigures("2026-03-10", "a", {"success": 5, "failed": 1}, 7, 1.0, 1.0, 0.0, 0.0)
    other = DailyFigures("2026-03-10", "b", {"success": 1}, 0, None, None, None, None)

    assert merged([full, other], [partly]) == [full, other]
    assert merged([full], [more, other]) == [more, other]
    assert merged([full], []) == [full]


def test_what_was_counted_in_another_zone_is_not_counted_again():
    rome = DailyFigures("2026-03-10", "a", {"success": 5}, 5, 1.0, 1.0, 0.0, 0.0, timezone="Europe/Rome")
    utc = replace(rome, runs={"success": 9}, timezone="UTC")
    before, after = replace(utc, day="2026-03-09"), replace(utc, day="2026-03-11")

    assert new_days([rome], [before, utc, after, replace(utc, job_id="b")]) == [after, replace(utc, job_id="b")]
    assert new_days([rome], [rome]) == [rome]
    assert new_days([replace(rome, timezone=None)], [utc]) == [utc]


def test_an_unusual_day_is_told_beside_the_days_before():
    def day(number, seconds=60.0, records=10):
        return DailyFigures(f"2026-03-{number:02}", "a", {"success": 1}, records, seconds, seconds, 0.0, 0.0)

    before = [day(number, 55.0 + number) for number in range(1, 9)]

    assert anomalies([*before, day(9)], "2026-03-09") == {}
    assert "much slower: it took 5m" in anomalies([*before, day(9, 300.0)], "2026-03-09")["a"][0]
    assert "much faster: it took 2.0s" in anomalies([*before, day(9, 2.0)], "2026-03-09")["a"][0]
    assert "no records" in anomalies([*before, day(9, records=0)], "2026-03-09")["a"][0]
    assert anomalies([*before[:3], day(9, 300.0)], "2026-03-09") == {}


def test_each_job_has_its_days_in_its_own_zone(daemon):
    jobs = {
        "stats": {"analytics": {"days": 3}, "timezone": "UTC"},
        "east": {"shell": "true", "timezone": "Pacific/Kiritimati"},  # UTC+14
        "west": {"shell": "true", "timezone": "Pacific/Niue"},  # UTC-11
    }
    running = daemon(jobs).start()
    for job_id in ("east", "west"):
        running.client.post(f"jobs/{job_id}/trigger")
    running.stop()
    ended = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)
    with closing(sqlite3.connect(running.folder / "state" / "history.db", isolation_level=None)) as connection:
        connection.execute("UPDATE runs SET finished_at = ?", [int(ended.timestamp() * 1e6)])
    running.start()
    running.client.post("jobs/stats/trigger")
    days = running.client.get("stats", days=5)["days"]
    found = {job_id: day["day"] for day in days for job_id in day["jobs"]}
    running.reload({"jobs": {"stats": jobs["stats"], "west": {**jobs["west"], "timezone": "UTC"}}})
    running.client.post("jobs/stats/trigger")

    assert found == {"west": f"{ended:%Y-%m-%d}", "east": f"{ended + timedelta(days=1):%Y-%m-%d}"}
    assert running.client.get("stats", days=5)["days"] == days  # also of a job that is gone, or has another zone


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
