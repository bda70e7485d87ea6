"""Backups whose programs fail, are killed midway, or are of the wrong version: they fail in words, and nothing is left."""

import glob
import os
import re
import signal
import subprocess
from pathlib import Path

import psycopg
import pytest

from schedulerd.backups.postgresql import ways_out
from tests.support.servers import PostgresServer, find
from tests.support.waiting import until

# What pg_dump 15 says of a server 17, and pg_restore 15 of what pg_dump 17 made.
TOO_OLD = """\
pg_dump: error: aborting because of server version mismatch
pg_dump: detail: server version: 17.12 (Debian 17.12-0+deb13u1); pg_dump version: 15.18 (Debian 15.18-0+deb12u1)"""
TOO_NEW = "pg_restore: error: unsupported version (1.16) in file header"


def begin(running):
    return running.client.post("jobs/b/trigger", wait="false").body["run_id"]


def failed(running, run_id):
    """Return what a run says that has failed, after which nothing may be listed or left."""
    run = until(lambda: (one := running.client.get(f"runs/{run_id}"))["finished_at"] and one, "the end of the run")
    assert run["status"] == "failed", run
    assert running.client.get("backups") == []
    assert os.listdir(running.folder / "state" / "backups") == []
    return run["error_message"]


def written(running, name):
    """Return how much of a file of a backup that is being made is there."""
    found = glob.glob(str(running.folder / "state" / "backups" / ".b-*.partial" / name))
    return os.path.getsize(found[0]) if found else 0


def kill_midway(running, run_id, program, file, number):
    """Send a signal to a program of a run that has begun to write."""
    until(lambda: written(running, file), f"the first bytes of {file}")
    os.kill(until(lambda: process_of(run_id, program), program), number)


def process_of(run_id, program):
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if Path(f"/proc/{name}/comm").read_text().strip() != program:
                continue
            if f"SCHEDULERD_RUN_ID={run_id}".encode() in Path(f"/proc/{name}/environ").read_bytes():
                return int(name)
        except OSError:
            continue
    return None


# PostgreSQL


@pytest.fixture
def big(postgres):
    """A database whose dump takes its time."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS big WITH (FORCE)")
        connection.execute("CREATE DATABASE big")
    url = postgres.url.replace("@/postgres", "@/big")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT md5(n::text) || md5((n + 0.5)::text) FROM generate_series(1, 1000000) AS n"
        )
    yield url
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE big WITH (FORCE)")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "pg_dump was killed by SIGKILL: no error message"),
        (signal.SIGTERM, "pg_dump failed .*terminated by user"),
    ],
)
def test_a_pg_dump_that_is_killed_midway_fails_the_backup(daemon, big, number, words):
    running = daemon(
        {"b": {"backup": {"source": "big", "pg_bin": os.path.dirname(find("pg_dump"))}}}, sources={"big": big}
    ).start()
    run_id = begin(running)
    kill_midway(running, run_id, "pg_dump", "content", number)

    assert re.search(words, failed(running, run_id))


def test_a_connection_that_ends_midway_fails_the_backup_with_pg_dumps_words(daemon, big, postgres):
    running = daemon(
        {"b": {"backup": {"source": "big", "pg_bin": os.path.dirname(find("pg_dump"))}}}, sources={"big": big}
    ).start()
    run_id = begin(running)
    until(lambda: written(running, "content"), "the first bytes of the dump")
    postgres.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pg_dump'")

    assert 'pg_dump failed with status 1: pg_dump: error: Dumping the contents of table "t" failed' in failed(
        running, run_id
    )


def versions():
    """Return the folders of the programs of each version of PostgreSQL that is installed, the oldest first."""
    found = {
        int(Path(path).parts[4]): os.path.dirname(path) for path in glob.glob("/usr/lib/postgresql/[1-9][0-9]/bin/pg_dump")
    }
    return [found[version] for version in sorted(found)]


@pytest.mark.skipif(len(versions()) < 2, reason="needs two versions of PostgreSQL under /usr/lib/postgresql")
@pytest.mark.parametrize("content", ["database", "globals"])
def test_a_pg_dump_that_is_older_than_the_server_fails_the_backup_and_says_the_way_out(daemon, content):
    server = PostgresServer()
    try:
        major = server.ask("SHOW server_version").split(".")[0]
        jobs = {"b": {"backup": {"source": "main", "content": content, "pg_bin": versions()[0]}}}
        running = daemon(jobs, sources={"main": server.url}).start()
        said = failed(running, begin(running))
    finally:
        server.close()

    assert "aborting because of server version mismatch" in said
    assert f"server version: {major}" in said
    assert said.endswith(f"pg_bin: /usr/lib/postgresql/{major}/bin")


def test_a_wrong_version_says_which_one_is_wanted():
    (newer,) = ways_out(TOO_OLD)
    (other,) = ways_out(TOO_NEW)

    assert "install postgresql-client-17" in newer
    assert newer.endswith("pg_bin: /usr/lib/postgresql/17/bin")
    assert "pg_bin" in other
    assert ways_out("connection to server failed") == []


# Compression and encryption


@pytest.fixture
def data(tmp_path):
    """A folder that takes a while to compress."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "noise").write_bytes(os.urandom(60_000_000))
    return folder


@pytest.fixture
def recipients(tmp_path):
    """Whom a backup is encrypted to, by program."""
    key, home, public = tmp_path / "key", tmp_path / "g", tmp_path / "backup.pub"
    subprocess.run([find("age-keygen"), "-o", key], capture_output=True, check=True)
    home.mkdir(mode=0o700)
    gpg = [find("gpg"), "--homedir", str(home), "--batch", "--quiet"]
    identity = ["--passphrase", "", "--quick-generate-key", "backup@example.org", "default", "default", "never"]
    subprocess.run([*gpg, *identity], check=True, capture_output=True)
    public.write_bytes(subprocess.run([*gpg, "--export"], check=True, capture_output=True).stdout)
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
    age = subprocess.run(["age-keygen", "-y", key], capture_output=True, text=True, check=True).stdout.strip()
    return {"age": [age], "gpg": [str(public)]}


@pytest.mark.parametrize(("victim", "encrypt"), [("gzip", "age"), ("gzip", "gpg"), ("age", "age"), ("gpg", "gpg")])
def test_a_program_of_the_row_that_is_killed_midway_fails_the_backup_and_is_named(daemon, data, recipients, victim, encrypt):
    settings = {"folder": str(data), "compress": "gzip", "encrypt": {encrypt: recipients[encrypt]}}
    running = daemon({"b": {"backup": settings}}).start()
    run_id = begin(running)
    kill_midway(running, run_id, victim, "wrapped", signal.SIGKILL)

    assert failed(running, run_id) == f"{victim} was killed by SIGKILL: no error message"


def test_an_encryption_that_fails_midway_is_told_and_not_the_program_before_it(daemon, data, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "age").write_text("#!/bin/sh\nhead -c 100000\necho 'age: error: the token was pulled out' >&2\nexit 1\n")
    (programs / "age").chmod(0o755)
    job = {
        "backup": {"folder": str(data), "compress": "gzip", "encrypt": {"age": ["age1x"]}},
        "env": {"PATH": f"{programs}:{os.environ['PATH']}"},
    }
    running = daemon({"b": job}).start()

    assert failed(running, begin(running)) == "age failed with status 1: age: error: the token was pulled out"
