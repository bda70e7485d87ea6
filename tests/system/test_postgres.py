"""A daemon whose history is in PostgreSQL."""

import json
import socket
from itertools import count
from pathlib import Path

import psycopg
import pytest

from schedulerd.cli.client import ClientError, run_path
from schedulerd.cli.main import main as schedulerctl
from schedulerd.store.postgres.store import PostgresStore
from tests.support.servers import PostgresServer, StandbyServer
from tests.support.waiting import until

SCHEMAS = count()
PASSWORD = "s3cr3t-of-the-history"


@pytest.fixture
def place(postgres):
    """Return the keys of a configuration that name a history of the test's own."""
    return {"store": postgres.url, "store_schema": f"daemon_{next(SCHEMAS)}"}


@pytest.fixture
def own_server():
    """Return a PostgreSQL that the test may stop."""
    server = PostgresServer()
    yield server
    server.close()


def test_runs_pauses_and_history_are_there_after_a_restart(daemon, place):
    jobs = {"good": {"shell": "echo hello"}, "bad": {"shell": "echo oh no; exit 3"}}
    running = daemon(jobs, **place).start()
    assert running.client.post("jobs/good/trigger", {}).body["success"]
    assert running.client.post("jobs/bad/trigger", {}).body["result"]["exit_code"] == 3
    running.client.post("jobs/good/pause", {"reason": "holidays"})
    assert running.stop() == 0
    assert not list(running.folder.glob("state/history*"))
    running.start()

    assert running.client.get("jobs/good")["is_paused"]
    assert running.client.get("jobs/good")["last_result"]["status"] == "success"
    (bad,) = running.client.get("jobs/bad/history")
    assert (bad["status"], bad["exit_code"], bad["error_message"]) == ("failed", 3, "exit status 3; last output: oh no")
    by_status = running.client.get("stats")["runs_by_status"]
    assert {status: number for status, number in by_status.items() if number} == {"success": 1, "failed": 1}


def test_a_run_that_goes_on_over_a_kill_of_the_daemon_has_its_true_end(daemon, place, tmp_path):
    script = f"touch {tmp_path}/started; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; exit 7"
    running = daemon({"long": {"shell": script}}, **place).start()
    running.client.post("jobs/long/trigger", {}, wait="false")
    until((tmp_path / "started").exists, "its child")
    running.kill()
    running.start()
    (tmp_path / "go").touch()

    until(lambda: running.client.get("jobs/long/history")[0]["status"] == "failed", "its end")
    assert running.client.get("jobs/long/history")[0]["exit_code"] == 7


def test_while_the_server_is_away_jobs_go_on_and_the_history_has_all_of_it_afterwards(daemon, own_server, tmp_path):
    line = f'echo "$SCHEDULERD_RUN_ID" >> {tmp_path}/said'
    jobs = {f"job{number}": {"every": "1s", "shell": line} for number in range(10)}
    running = daemon(jobs, store=own_server.url).start()
    until(lambda: said(tmp_path) > 20, "runs")
    own_server.stop()
    before = said(tmp_path)
    until(lambda: said(tmp_path) > before + 30, "runs while the server is away")
    own = running.client.get("health")["scheduler"]
    assert not own["is_well"]
    assert own["backlog"]["changes"] > 0
    assert running.client.get("jobs")
    with pytest.raises(ClientError) as caught:
        running.client.get("jobs/job1/history")
    assert caught.value.status == 503
    running.kill()
    running.spawn()
    own_server.start()
    until(lambda: health(running).get("store") == "ok", "well again")
    until(lambda: said(tmp_path) > before + 60, "runs afterwards")
    assert running.stop() == 0

    ids = (tmp_path / "said").read_text().split()
    with psycopg.connect(own_server.url) as connection:
        rows = dict(connection.execute("SELECT run_id, status FROM schedulerd.runs").fetchall())
    assert len(set(ids)) == len(ids)
    assert [run_id for run_id in ids if rows.get(run_id) != "success"] == []


def test_while_the_server_is_away_runs_are_seen_followed_and_cancelled(daemon, own_server, capfdbinary):
    jobs = {
        "long": {"shell": "echo begin; exec sleep 600"},
        "tick": {"shell": "echo hello; exit 3"},
        "own": {"shell": "true"},
    }
    running = daemon(jobs, store=own_server.url).start()
    client, door = running.client, ["--socket", str(running.socket_path)]
    run_id = client.post("jobs/long/trigger", {}, wait="false").body["run_id"]
    until(lambda: client.get(run_path(run_id))["output_bytes"], "its output")
    own_server.stop()

    assert [run["run_id"] for run in client.get("running")] == [run_id]
    assert client.get(run_path(run_id))["status"] == "running"
    assert (client.get("jobs/long/why")["outcome"], client.get("jobs/long/next")["times"]) == ("running", [])
    assert schedulerctl([*door, "logs", "long"]) == 0
    assert schedulerctl([*door, "run", "tick", "-f"]) == 3
    assert schedulerctl([*door, "--json", "run", "tick"]) == 3
    assert capfdbinary.readouterr().out.startswith(b"begin\nhello\n{")
    with pytest.raises(ClientError, match="cannot be written"):
        client.post("jobs/tick/pause", {})
    client.post(run_path(run_id, "cancel"), {}, wait="true")
    assert client.get(run_path(run_id))["status"] == "cancelled"
    late = client.post("jobs/long/trigger", {}, wait="false").body["run_id"]
    assert schedulerctl([*door, "cancel", "long", "--wait"]) == 0
    assert client.get(run_path(late))["status"] == "cancelled"

    own_server.start()
    until(lambda: health(running)["store"] == "ok", "well again", 60)
    assert [run["status"] for run in client.get("jobs/long/history")] == ["cancelled", "cancelled"]
    client.post("jobs/own/pause", {})
    log = running.log()
    assert ("job tick: paused" in log, "job own: paused by" in log) == (False, True)


def test_a_server_that_is_silent_does_not_hold_up_the_end_and_loses_nothing(daemon, own_server, tmp_path):
    line = f'echo "$SCHEDULERD_RUN_ID" >> {tmp_path}/said'
    running = daemon({"tick": {"every": "1s", "shell": line}}, store=own_server.url).start()
    until(lambda: said(tmp_path) > 1, "runs")
    own_server.freeze()
    before = said(tmp_path)
    until(lambda: said(tmp_path) > before + 3, "runs while the server is silent")

    assert running.stop() == 0
    own_server.freeze(False)
    running.start()
    ids = (tmp_path / "said").read_text().split()
    until(lambda: own_server.ask("SELECT count(*) FROM schedulerd.runs WHERE run_id = ANY(%s) AND status = 'success'", ids)
          == len(ids), "all ends in the history")  # fmt: skip
    assert len(ids) == len(set(ids))


def test_on_a_standby_nothing_is_started_twice_and_the_daemon_waits_for_the_primary(daemon, own_server, tmp_path):
    line = f'echo "$SCHEDULERD_SCHEDULED_AT" >> {tmp_path}/said'
    jobs = {"tick": {"every": "1s", "shell": line, "catch_up": "all", "catch_up_spacing": "0s"}}
    running = daemon(jobs, store=own_server.url).start()
    standby = StandbyServer(own_server)
    try:
        standby.ask("SELECT pg_wal_replay_pause()")
        running.stop()
        running.write({
            "store": f"{own_server.url},{standby.folder}&target_session_attrs=any", "catch_up_spread": "0s", "jobs": jobs,
        })  # fmt: skip
        running.start()
        before = said(tmp_path)
        until(lambda: said(tmp_path) > before + 3, "runs that the standby has not got")
        running.stop()
        before = said(tmp_path)
        own_server.stop()
        running.spawn()
        until(lambda: "waiting for the store" in running.log(), "the word that it waits")
        assert "is a standby" in running.log()
        assert said(tmp_path) == before
        own_server.start()
        until(lambda: said(tmp_path) > before + 2, "runs on the primary", 60)
    finally:
        standby.close()
    running.stop()

    occurrences = (tmp_path / "said").read_text().split()
    assert len(occurrences) == len(set(occurrences))


def test_the_password_is_looked_up_late_and_shown_nowhere(daemon, own_server):
    with psycopg.connect(own_server.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE historian LOGIN PASSWORD '{PASSWORD}'")
        connection.execute("CREATE SCHEMA schedulerd AUTHORIZATION historian")
    own_server.demand_passwords()
    url = own_server.url.replace("postgres@", f"historian:{PASSWORD}@")
    jobs = {"leak": {"shell": f"echo {PASSWORD}; cat /proc/$PPID/cmdline; exit 1"}}
    running = daemon(jobs, env={"HISTORY_URL": url.replace(PASSWORD, "wrong-but-secret")}, store={"env": "HISTORY_URL"})
    running.spawn()
    until(lambda: "waiting for the store" in running.log(), "the word that it waits")
    running.stop()
    (running.folder / "url").write_text(url + "\n")
    (running.folder / "url").chmod(0o600)
    running.write({"store": {"file": "url"}, "jobs": jobs})
    running.start()
    answer = running.client.post("jobs/leak/trigger", {}).body
    assert answer["status"] == "failed"
    own_server.stop()
    until(lambda: health(running).get("store") != "ok" or running.client.post("jobs/leak/trigger", {}), "the outage")
    texts = [running.log(), str(answer), str(health(running)), Path(f"/proc/{running.process.pid}/cmdline").read_text()]
    texts += [file.read_text(errors="replace") for file in running.folder.glob("state/**/*.journal")]
    own_server.start()

    assert [text for text in texts if PASSWORD in text or "wrong-but-secret" in text] == []


def test_a_history_belongs_to_one_daemon_until_it_is_released(daemon, place):
    first, second = daemon({}, **place).start(), daemon({}, **place)
    release = ["db", "release", "--config", str(second.config_path)]
    second.spawn()
    assert second.wait() == 78
    assert f"belongs to the daemon on {socket.gethostname()}:{first.folder}/state since" in second.log()
    assert schedulerctl(release) == 1  # the first one runs
    assert first.stop() == 0
    second.spawn()
    assert second.wait() == 78  # as it would be while the first one restarts
    assert schedulerctl(release) == 0
    second.start()
    first.spawn()

    assert first.wait() == 78


def test_whose_a_history_is_can_be_asked(daemon, place, capfd):
    running = daemon({}, **place).start()
    assert schedulerctl(["--json", "db", "status", "--config", str(running.config_path)]) == 0
    assert json.loads(capfd.readouterr().out)["owner"] == f"{socket.gethostname()}:{running.folder}/state"


def test_a_role_without_rights_on_a_table_that_an_upgrade_added_is_told_so(daemon, postgres, place):
    schema = place["store_schema"]
    PostgresStore(postgres.url, schema).close()
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE of_old_{schema} LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO of_old_{schema}")
        connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO of_old_{schema}")
        connection.execute(f"REVOKE ALL ON {schema}.owner FROM of_old_{schema}")
    running = daemon({}, **{**place, "store": postgres.url.replace("postgres@", f"of_old_{schema}@")})
    running.spawn()

    assert running.wait() == 1
    assert "grant the daemon's role its rights on all tables" in running.log()


def test_a_newer_schema_ends_the_start_with_a_clear_way_out(daemon, postgres, place):
    PostgresStore(postgres.url, place["store_schema"]).close()
    with psycopg.connect(postgres.url) as connection:
        connection.execute(f"INSERT INTO {place['store_schema']}.schedulerd_migrations VALUES (999, 'of the future')")
    running = daemon({}, **place)
    running.spawn()

    assert running.wait() == 1
    assert "newer schedulerd (version 999" in running.log()


def said(folder):
    return len((folder / "said").read_text().split()) if (folder / "said").exists() else 0


def health(running):
    try:
        return running.client.get("health")["scheduler"]
    except ClientError:
        return {}
