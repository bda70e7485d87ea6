"""A real standby: what health tells of it, and backups that are taken from it."""

import os
import subprocess

import psycopg
import pytest

from schedulerd.actions.probes.standby import doubts
from tests.support.servers import PostgresServer, StandbyServer, find
from tests.support.waiting import until

LAG = "SELECT extract(epoch FROM now() - pg_last_xact_replay_timestamp())"
RECEIVERS = "SELECT count(*) FROM pg_stat_wal_receiver"


@pytest.fixture(scope="module")
def primary():
    server = PostgresServer()
    server.ask("CREATE TABLE early AS SELECT 1 AS n")
    server.ask("CREATE TABLE orders AS SELECT n FROM generate_series(1, 1000) AS n")
    server.ask("CREATE ROLE plain LOGIN")
    yield server
    server.close()


@pytest.fixture
def standby(primary):
    server = StandbyServer(primary)
    until(lambda: server.ask(RECEIVERS), "the stream")
    write(primary)
    until(server.has_all, "the standby's replay")
    yield server
    server.close()


@pytest.fixture
def watched(daemon, standby):
    """A daemon that watches the standby, which may be half a second behind; call it for what health says of that."""
    targets = {
        "replica": {"postgresql": standby.url, "max_lag": "0.5s"},
        "plain": {"postgresql": standby.url.replace("postgres@", "plain@"), "max_lag": "0.5s"},
    }
    running = daemon({"health": {"health_check": {"postgresql": standby.primary.url, "targets": targets}}}).start()

    def look(name="replica"):
        look.details = running.client.post("jobs/health/trigger").body["result"]["details"]
        look.changes += [(each["from"], each["to"]) for each in look.details["changes"] if each["service"] == "replica"]
        return look.details["services"][name]

    look.daemon, look.changes = running, []
    return look


def write(primary):
    primary.ask("UPDATE orders SET n = n WHERE n = 1")


def psql(server, question):
    done = subprocess.run(["psql", "-At", server.url, "-c", question], capture_output=True, text=True, check=True)
    return done.stdout.strip()


# Health


def test_a_standby_says_that_it_is_in_recovery_and_not_behind(watched, standby):
    told = watched()
    of_primary = watched.details["services"]["postgresql"]

    assert (told["status"], told["in_recovery"], told["streaming"], told["replication_lag_seconds"]) == (
        "healthy", True, True, 0,
    )  # fmt: skip
    assert told["replay_lsn"] == psql(standby, "SELECT pg_last_wal_replay_lsn()")
    assert (of_primary["in_recovery"], of_primary["replication_lag_seconds"], of_primary["replicas"]) == (False, None, 1)


def test_the_lag_of_a_paused_replay_is_what_psql_says_and_degrades_until_it_is_resumed(watched, standby):
    watched()
    write(standby.primary)
    until(standby.has_all, "the standby's replay")
    standby.ask("SELECT pg_wal_replay_pause()")
    write(standby.primary)
    least = float(psql(standby, LAG))
    first = watched()
    most = float(psql(standby, LAG))
    bad = until(lambda: (told := watched())["status"] == "degraded" and told, "a lag that is told")
    still = watched()

    assert least <= first["replication_lag_seconds"] + 0.001
    assert first["replication_lag_seconds"] <= most + 0.001
    assert "replication lag is" in bad["error"]
    assert "more than 0.5 s; its replay is paused" in bad["error"]
    assert (bad["replay_paused"], bad["streaming"]) == (True, True)
    assert still["replication_lag_seconds"] > bad["replication_lag_seconds"]
    assert still["since"] == bad["since"]

    standby.ask("SELECT pg_wal_replay_resume()")
    until(standby.has_all, "the standby's replay")
    well = watched()
    assert (well["status"], well["replication_lag_seconds"], well["replay_paused"]) == ("healthy", 0, False)
    assert watched.changes[-2:] == [("healthy", "degraded"), ("degraded", "healthy")]
    assert "replica is healthy, was degraded" in watched.daemon.log()


def test_an_idle_primary_is_no_lag_nor_is_the_first_write_after_it(watched, standby):
    until(lambda: float(psql(standby, LAG)) > 1, "a primary that has been idle")
    idle = watched()
    standby.ask("SELECT pg_wal_replay_pause()")
    write(standby.primary)
    until(standby.has_received_all, "the write on the standby")
    written = watched()
    age = float(psql(standby, LAG))

    assert (idle["status"], idle["replication_lag_seconds"]) == ("healthy", 0)
    assert 0 < written["replication_lag_seconds"] < age - 0.9


def test_a_restarted_standby_of_an_idle_primary_is_not_behind(watched, standby):
    standby.stop()
    standby.start()
    until(lambda: standby.ask("SELECT count(latest_end_lsn) FROM pg_stat_wal_receiver"), "the stream")
    until(standby.has_all, "the standby's replay")
    until(lambda: float(psql(standby, LAG) or 1) > 0.5, "a primary that has been idle")

    assert (told := watched())["replication_lag_seconds"] == 0, told
    assert told["status"] == watched("plain")["status"] == "healthy"


def test_a_standby_that_has_lost_its_primary_claims_no_lag_and_says_so(watched, standby):
    known = watched()["caught_up"]
    standby.primary.stop()
    try:
        until(lambda: not standby.ask(RECEIVERS), "the end of the stream")
        lost = watched()
        without_rights = watched("plain")
    finally:
        standby.primary.start()

    assert (lost["status"], lost["replication_lag_seconds"], lost["streaming"]) == ("degraded", None, False)
    assert lost["error"] == f"it does not stream from its primary: what it lacks since {known['at']} cannot be known"
    assert lost["caught_up"] == known
    assert "does not stream" in without_rights["error"]
    until(lambda: watched()["status"] == "healthy", "the stream again")


def test_a_standby_that_is_promoted_is_none_any_more(watched, standby):
    assert watched()["in_recovery"]
    standby.ask("SELECT pg_promote()")
    told = watched()

    assert (told["status"], told["in_recovery"], told["replication_lag_seconds"]) == ("healthy", False, None)


def test_a_standby_without_a_stream_tells_the_age_of_its_last_transaction(watched, standby):
    standby.stop()
    (standby.folder / "data" / "postgresql.auto.conf").write_text("")  # as one that is fed from an archive
    standby.start()
    least = float(psql(standby, LAG))
    told = watched()
    most = float(psql(standby, LAG))

    assert least <= told["replication_lag_seconds"] + 0.001
    assert told["replication_lag_seconds"] <= most + 0.001
    assert (told["streaming"], told["lost_primary"]) == (False, False)


def test_a_limit_of_a_lag_that_is_not_known_is_not_kept():
    answer = {"replication_lag_seconds": None, "lost_primary": False, "replay_paused": False}

    assert any("replayed no transaction since its start" in (doubt or "") for doubt in doubts(answer, 30))
    assert not any(doubts(answer, None))


def test_a_user_without_rights_sees_as_much_of_a_standby_and_its_connections(watched, standby):
    with psycopg.connect(standby.url) as other:
        other.execute("SELECT 1")
        until(lambda: watched()["connections"] == watched("plain")["connections"], "the ends of other connections")
        told = watched("plain")

    assert (told["status"], told["replication_lag_seconds"], told["streaming"]) == ("healthy", 0, True)
    assert told["connections"] >= 2


# Backups


@pytest.fixture
def running(daemon, standby):
    job = {"backup": {"source": "main", "pg_bin": os.path.dirname(find("pg_dump"))}}
    return daemon({"b": job}, sources={"main": standby.url}).start()


def test_a_backup_is_taken_from_a_standby(running):
    body = running.client.post("jobs/b/trigger").body
    (backup,) = running.client.get("backups")
    read = [find("pg_restore"), "--list", backup["path"]]
    listed = subprocess.run(read, capture_output=True, text=True, check=True).stdout

    assert body["status"] == "success"
    assert "TABLE DATA public orders" in listed


def test_a_backup_that_the_standby_cancels_fails_with_its_words_and_a_way_out(running, standby):
    standby.ask("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    standby.ask("SELECT pg_reload_conf()")
    until(lambda: standby.ask("SHOW max_standby_streaming_delay") == "0", "the setting")
    with psycopg.connect(standby.primary.url) as writer:
        writer.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")  # the standby holds it, too: pg_dump waits
        standby.primary.ask("UPDATE early SET n = n")  # a commit, which takes the lock along
        until(standby.has_all, "the standby's replay")
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump' AND wait_event_type = 'Lock'"
        run_id = running.client.post("jobs/b/trigger", wait="false").body["run_id"]
        until(lambda: standby.ask(waiting), "a pg_dump that waits")
        standby.primary.ask("TRUNCATE early")  # pg_dump has locked that one
        run = until(lambda: (one := running.client.get(f"runs/{run_id}"))["finished_at"] and one, "the end of the run")

    assert run["status"] == "failed"
    assert "canceling statement due to conflict with recovery" in str(run)
    assert "max_standby_streaming_delay" in str(run)
    assert os.listdir(running.folder / "state" / "backups") == []
