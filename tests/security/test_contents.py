"""S29: what a database has in it is told to admins alone, in the output of a run; history, log and manifests have none."""

import json
import re
import sqlite3

import psycopg
import pytest

from schedulerd.cli.client import PREFIX
from tests.security.test_config_secrets import with_role
from tests.support.servers import find

CANARY = "Tr0ub4dor"
SCHEMA = f"""
CREATE TABLE person (ssn text UNIQUE, n integer);
INSERT INTO person VALUES ('{CANARY}-row', 1);
CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
CREATE ROLE contents_reader;
CREATE USER MAPPING FOR contents_reader SERVER far OPTIONS (user 'u', password '{CANARY}-mapping');
"""
RAISED = "DO $$BEGIN RAISE EXCEPTION '%', (SELECT ssn FROM person); END$$"
STATEMENTS = {
    "double": {"sql": {"dsn": "main", "statement": "INSERT INTO person SELECT * FROM person"}},
    "cast": {"sql": {"dsn": "main", "statement": "SELECT quote_ident(ssn)::regclass FROM person"}},
    "raised": {"sql": {"dsn": "main", "statement": RAISED}},
    "rows": {"sql": {"dsn": "main", "statement": "SELECT ssn FROM person"}},
    "lite": {"sql": {"dsn": "lite", "statement": "SELECT json_extract('{}', ssn) FROM person"}},
}
KEPT = {
    "double": 'UniqueViolation (23505): duplicate key value violates unique constraint "person_ssn_key"',
    "mapped": "at CREATE USER MAPPING FOR contents_reader SERVER far OPTIONS",
    "cast": "UndefinedTable (42P01)", "raised": "RaiseException (P0001)", "lite": "SQLITE_ERROR",
}  # fmt: skip


@pytest.fixture
def database(postgres):
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute("CREATE DATABASE contents")
        url = postgres.url.replace("/postgres?", "/contents?")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SCHEMA)
        yield url
        server.execute("DROP DATABASE contents WITH (FORCE)")
        server.execute("DROP ROLE IF EXISTS contents_reader")


def test_s29_contents_of_a_database_are_told_to_admins_alone(daemon, database, postgres, tmp_path):
    find("pg_dump")
    with sqlite3.connect(tmp_path / "lite.db") as lite:
        lite.execute(f"CREATE TABLE person AS SELECT '{CANARY}-lite' AS ssn")
    sources = {"main": database, "server": postgres.url, "lite": f"sqlite://{tmp_path}/lite.db"}
    drill = {"b": {"backup": {"source": "main"}}, "mapped": {"restore_drill": {"of": "b", "into": "server"}}}
    running = daemon(drill | STATEMENTS, sources=sources, api={"listen": "127.0.0.1:0"})
    running.start()
    runs = {job: running.client.post(f"jobs/{job}/trigger", wait="false").body["run_id"] for job in STATEMENTS}
    running.client.post("jobs/b/trigger")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP USER MAPPING FOR contents_reader SERVER far; DROP ROLE contents_reader")
    runs["mapped"] = running.client.post("jobs/mapped/trigger").body["run_id"]

    def outputs(client):
        return {job: client.ask("GET", f"{PREFIX}/runs/{run_id}/output") for job, run_id in runs.items()}

    ended = {job: running.client.get(f"runs/{run_id}", wait="true") for job, run_id in runs.items()}
    assert [job for job, kept in KEPT.items() if kept not in ended[job]["error_message"]] == []
    assert [job for job, answer in outputs(running.client).items() if CANARY not in answer.body] == []
    manifests = "".join(path.read_text() for path in running.folder.glob("state/backups/*.json"))
    answers = json.dumps([ended, *map(running.client.get, ("runs", "backups", "health"))])
    for text in (manifests, answers, running.log()):
        assert re.findall(f".*{CANARY}.*", text) == []

    assert {answer.status for answer in outputs(with_role(running, "operator")).values()} == {403}
    running.reload({"jobs": {"double": {"shell": "true"}}, "api": {"listen": "127.0.0.1:0"}})  # the others are gone
    refused = outputs(with_role(running, "viewer")).values()
    assert {(each.status, each.body["detail"].partition(": ")[2]) for each in refused} == {
        (403, "it may quote the contents of a database")
    }
