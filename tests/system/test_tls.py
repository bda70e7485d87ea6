"""What a daemon watches and backs up over TLS: who is trusted, and what is said when it isn't."""

import json
import os
import signal
from contextlib import suppress

import psycopg
import pytest
import redis

from schedulerd.cli.client import ClientError, run_path
from tests.support.servers import RedisServer
from tests.support.waiting import until

PASSWORD = "s3cret-pass"
KEYS = 2000
UNKNOWN = "self-signed certificate in certificate chain|unable to get local issuer certificate"  # by the version of OpenSSL


def run(running, job, expected="success"):
    body = running.client.post(f"jobs/{job}/trigger").body
    assert body["status"] == expected, body
    return body


def services(running):
    """Return what a fresh check says of each service."""
    return run(running, "health")["result"]["details"]["services"]


def folder_of(running):
    return running.folder / "state" / "backups"


def is_told(running, *more):
    """Return whether the password has got into the log, or into what was answered."""
    return PASSWORD in running.log() + json.dumps(more)


# PostgreSQL


@pytest.fixture
def verified(tls_postgres, authority):
    """Make a URL whose server is verified in full; by whom, and under which name."""

    def make(signer=authority, **more):
        return tls_postgres.tls_url("sslmode=verify-full", f"sslrootcert={signer.certificate}", **more)

    return make


def test_a_daemon_keeps_its_history_over_tls(daemon, tls_postgres, verified):
    running = daemon({"job": {"shell": "echo hello"}}, store=verified(), store_schema="tls_daemon").start()
    run(running, "job")
    with psycopg.connect(tls_postgres.url) as connection:
        rows = connection.execute("SELECT status FROM tls_daemon.runs").fetchall()
        used = connection.execute(
            "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name ~ '/tls_daemon$'"
        ).fetchall()

    assert (rows, used) == ([("success",)], [(True,)])
    assert not is_told(running)


def test_a_daemon_whose_history_has_another_signer_waits_and_says_why(daemon, verified, stranger):
    running = daemon({"job": {"shell": "echo hello"}}, store=verified(stranger), store_schema="tls_never")
    running.spawn()
    until(lambda: "certificate verify failed" in running.log(), "the reason in the log")
    until(lambda: readiness(running) == 503, "its readiness")

    assert not is_told(running)
    assert running.stop() == 0


def readiness(running):
    with suppress(OSError):
        try:
            return running.client.ask("GET", "/readyz").status
        except ClientError as error:
            return error.status


def test_health_looks_at_a_postgresql_whose_certificate_it_has_verified(daemon, tls_postgres, verified, stranger):
    targets = {
        "right": {"postgresql": verified()},
        "signer": {"postgresql": verified(stranger)},
        "name": {"postgresql": verified(host="127.0.0.1")},
        "plain": {"postgresql": tls_postgres.tls_url("sslmode=disable")},
    }
    running = daemon({"health": {"health_check": {"targets": targets}}}).start()
    found = services(running)

    assert found["right"]["status"] == "healthy"
    assert {found[name]["status"] for name in ("signer", "name", "plain")} == {"unhealthy"}
    assert "certificate verify failed" in found["signer"]["error"]
    assert 'does not match host name "127.0.0.1"' in found["name"]["error"]
    assert "no encryption" in found["plain"]["error"]
    assert not is_told(running, found)


@pytest.fixture
def shop(tls_postgres):
    """A table in the database that the URLs name."""
    with psycopg.connect(tls_postgres.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders AS SELECT generate_series(1, 1000) AS n")
        yield
        connection.execute("DROP TABLE orders")


def test_a_database_is_dumped_and_proven_over_tls(daemon, shop, verified):
    jobs = {
        "b": {"backup": {"source": "shop"}},
        "g": {"backup": {"source": "shop", "content": "globals"}},
        "d": {"restore_drill": {"of": "b", "into": verified(), "assertions": ["SELECT count(*) = 1000 FROM orders"]}},
    }
    running = daemon(jobs, sources={"shop": verified()}).start()
    for job in jobs:
        run(running, job)

    assert {one["kind"] for one in running.client.get("backups")} == {"postgresql", "postgresql-globals"}
    (globals_file,) = folder_of(running).glob("*.sql")
    assert "CREATE ROLE keeper" in globals_file.read_text()
    assert not is_told(running)


def test_a_client_certificate_is_shown_by_a_dump_and_by_a_drill(daemon, shop, tls_postgres, authority):
    own = authority.sign("certified")
    options = ("sslmode=verify-full", f"sslrootcert={authority.certificate}", f"sslcert={own.path}", f"sslkey={own.key}")
    url = tls_postgres.tls_url(*options, user="certified")
    jobs = {
        "b": {"backup": {"source": "shop"}},
        "d": {"restore_drill": {"of": "b", "into": url, "assertions": ["SELECT count(*) = 1000 FROM orders"]}},
    }
    running = daemon(jobs, sources={"shop": url}).start()

    run(running, "b")
    run(running, "d")


@pytest.mark.parametrize("content", ["database", "globals"])
def test_a_dump_is_taken_from_nobody_else(daemon, verified, stranger, content):
    sources = {"signer": verified(stranger), "name": verified(host="127.0.0.1")}
    running = daemon({name: {"backup": {"source": name, "content": content}} for name in sources}, sources=sources).start()
    bodies = [run(running, name, "failed") for name in sources]

    assert "certificate verify failed" in bodies[0]["message"]
    assert 'does not match host name "127.0.0.1"' in bodies[1]["message"]
    assert not is_told(running, bodies)
    assert os.listdir(folder_of(running)) == []


def test_a_drill_restores_into_nobody_elses_server(daemon, shop, verified, stranger):
    jobs = {
        "b": {"backup": {"source": "shop"}},
        "d": {"restore_drill": {"of": "b", "into": verified(stranger), "assertions": ["SELECT true"]}},
    }
    running = daemon(jobs, sources={"shop": verified()}).start()
    run(running, "b")
    body = run(running, "d", "failed")

    assert "certificate verify failed" in body["message"]
    assert not is_told(running, body)
    assert running.client.get("backups")[0]["is_good"]


# Redis


@pytest.fixture
def make_cache(tmp_path, authority):
    """Make a Redis with a password and some keys, on TLS only."""
    made = []

    def make(**more):
        folder = tmp_path / f"cache{len(made)}"
        folder.mkdir()
        made.append(RedisServer(folder, authority.sign("localhost"), **more))
        until(made[-1].answers, "redis-server")
        client = redis.Redis(unix_socket_path=str(made[-1].socket))
        client.config_set("requirepass", PASSWORD)
        client.mset({f"key:{number}": os.urandom(512) for number in range(KEYS)})
        client.close()
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def cache(make_cache):
    return make_cache()


def trusting(server, signer, *options, **more):
    return server.tls_url(f"ssl_ca_certs={signer.certificate}", *options, password=PASSWORD, **more)


@pytest.fixture
def wrong_ones(cache, authority, stranger, tmp_path):
    """URLs of a Redis that is not to be trusted by them, and what is to be said about each."""
    return {
        "unnamed": (cache.tls_url(password=PASSWORD), UNKNOWN),
        "signer": (trusting(cache, stranger), UNKNOWN),
        "name": (trusting(cache, authority, host="127.0.0.1"), "not valid for '127.0.0.1'"),
        "missing": (cache.tls_url(f"ssl_ca_certs={tmp_path}/none.pem", password=PASSWORD), f"{tmp_path}/none.pem"),
    }


def is_said(wanted, text):
    return any(each in text for each in wanted.split("|"))


def test_health_looks_at_a_redis_whose_certificate_it_has_verified(daemon, cache, authority, wrong_ones):
    targets = {name: {"redis": url} for name, (url, _) in wrong_ones.items()}
    targets["right"] = {"redis": trusting(cache, authority)}
    targets["unasked"] = {"redis": trusting(cache, authority, "ssl_check_hostname=no", host="127.0.0.1")}
    targets["blind"] = {"redis": cache.tls_url("ssl_cert_reqs=none", password=PASSWORD)}
    running = daemon({"health": {"health_check": {"targets": targets}}}).start()
    found = services(running)

    assert {name: found[name]["status"] for name in targets} == {
        **dict.fromkeys(wrong_ones, "unhealthy"), **dict.fromkeys(("right", "unasked", "blind"), "healthy"),
    }  # fmt: skip
    assert [name for name, (_, wanted) in wrong_ones.items() if not is_said(wanted, found[name]["error"])] == []
    assert not is_told(running, found)


def test_an_rdb_comes_over_tls_whole_and_from_nobody_else(daemon, cache, authority, wrong_ones):
    sources = {name: url for name, (url, _) in wrong_ones.items()}
    sources["right"] = trusting(cache, authority)
    jobs = {name: {"backup": {"source": name}} for name in sources}
    jobs["drill"] = {"restore_drill": {"of": "right", "assertions": [f"EXISTS key:{KEYS - 1}"]}}
    running = daemon(jobs, sources=sources).start()
    failed = {name: run(running, name, "failed")["message"] for name in wrong_ones}
    assert os.listdir(folder_of(running)) == []
    run(running, "right")
    run(running, "drill")

    assert {name: text for name, text in failed.items() if not is_said(wrong_ones[name][1], text)} == {}
    (backup,) = running.client.get("backups")
    assert backup["size_bytes"] > KEYS * 512
    assert not is_told(running, failed)


def test_a_redis_that_asks_for_a_certificate_gets_ours(daemon, make_cache, authority):
    server = make_cache(asks_clients=True)
    own = authority.sign("schedulerd")
    sources = {
        "with": trusting(server, authority, f"ssl_certfile={own.path}", f"ssl_keyfile={own.key}"),
        "without": trusting(server, authority),
    }
    jobs = {name: {"backup": {"source": name}} for name in sources}
    jobs["health"] = {"health_check": {"targets": {name: {"redis": url} for name, url in sources.items()}}}
    running = daemon(jobs, sources=sources).start()
    run(running, "with")
    body = run(running, "without", "failed")
    found = services(running)

    assert (found["with"]["status"], found["without"]["status"]) == ("healthy", "unhealthy")
    # The alert is lost when what we say comes after the server has hung up.
    assert is_said("TLS failed: TLSV13_ALERT_CERTIFICATE_REQUIRED|Connection reset by peer|Broken pipe", body["message"])
    assert not is_told(running, body, found)


def test_a_wrong_password_over_tls_is_what_redis_says(daemon, cache, authority):
    url = trusting(cache, authority).replace(PASSWORD, "wr0ng-pass")
    running = daemon({"b": {"backup": {"source": "cache"}}}, sources={"cache": url}).start()
    body = run(running, "b", "failed")

    assert "WRONGPASS" in body["message"]
    assert "wr0ng-pass" not in json.dumps(body) + running.log()


def test_a_redis_that_hangs_within_tls_is_given_up_and_nothing_is_left(daemon, cache, authority, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    job = {"backup": {"source": "cache"}, "env": {"TMPDIR": str(scratch)}}
    running = daemon({"b": job}, sources={"cache": trusting(cache, authority)}).start()
    client = redis.Redis(unix_socket_path=str(cache.socket), password=PASSWORD)
    client.config_set("repl-diskless-sync-delay", 600)
    run_id = running.client.post("jobs/b/trigger", {}, wait="false").body["run_id"]
    until(lambda: client.info("replication")["connected_slaves"], "the backup within TLS")
    client.close()
    cache.process.send_signal(signal.SIGSTOP)
    running.client.post(run_path(run_id, "cancel"), {}, wait="true")
    cache.process.send_signal(signal.SIGCONT)

    assert running.client.get(run_path(run_id))["status"] == "cancelled"
    assert os.listdir(scratch) == os.listdir(folder_of(running)) == []


def test_a_redis_whose_url_has_no_password_is_told_with_its_files(daemon, cache, tmp_path):
    targets = {"cache": {"redis": cache.tls_url(f"ssl_ca_certs={tmp_path}/none.pem")}}
    running = daemon({"health": {"health_check": {"targets": targets}}}).start()

    assert services(running)["cache"]["error"] == f"{tmp_path}/none.pem, named in the URL, does not exist"
