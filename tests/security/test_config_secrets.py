"""S29: a password in a configuration with a mistake is in no error, log or answer, however it was mistyped."""

import hashlib
import json
import re
import subprocess
import sys

import pytest
import yaml

from schedulerd.cli.client import Client
from schedulerd.config.loader import load
from schedulerd.core.errors import ConfigError

CANARY = "Tr0ub4dor"
URL = f"postgresql//u:{CANARY}@h"
MISTYPED = [
    URL,
    f"host=h password={CANARY}",
    f"u:{CANARY}@h",
    f"mysql://u:{CANARY}@h/d",
    f"postgresql:/u:{CANARY}@h/d",
    f"Bearer {CANARY}",
    f"{CANARY}\0",
    [URL],
    {URL: None},
    {"url": URL},
    {f"password={CANARY}": 1},
    {f"Authorization Bearer {CANARY}": 1},
    {"env": URL},
    {"file": f"postgresql://u:{CANARY}@h"},
    {"credential": URL},
    {"env": "A", "file": URL},
]


def places(value):
    """Yield the places in which a secret may stand, by name, with `value` there."""
    jobs = {
        "url": {"http": {"url": value}}, "http": {"http": value}, "body": {"http": {"url": "http://h", "body": value}},
        "header": {"http": {"url": "http://h", "headers": {"Authorization": value}}},
        "headers": {"http": {"url": "http://h", "headers": value}},
        "expect_json": {"http": {"url": "http://h", "expect_json": value}},
        "dsn": {"sql": {"dsn": value, "statement": "select 1"}}, "sql": {"sql": value},
        "source": {"backup": {"source": value}}, "backup": {"backup": value},
        "into": {"restore_drill": {"of": "saved", "into": value}}, "drill": {"restore_drill": value},
        "env": {"shell": "true", "env": value}, "variable": {"shell": "true", "env": {"A": value}},
        "health_check": {"health_check": value}, "targets": {"health_check": {"targets": value}},
        "target": {"health_check": {"targets": {"a": value}}},
        "kwargs": {"python": {"call": "a:b", "kwargs": value}}, "job": value,
        **{kind: {"health_check": {kind: value}} for kind in ("postgresql", "redis")},
        **{f"target {kind}": {"health_check": {"targets": {"a": {kind: value}}}}
           for kind in ("postgresql", "redis", "http", "tcp")},
    }  # fmt: skip
    saved = {"saved": {"backup": {"source": "history"}}}
    yield from ((name, {"jobs": {**saved, "a": job}}) for name, job in jobs.items())
    yield from ((key, {key: value}) for key in ("store", "sources", "defaults"))
    yield "a source", {"sources": {"a": value}}
    yield "default env", {"defaults": {"env": value}}


def problems(path, text):
    path.write_text(text)
    path.chmod(0o600)
    try:
        return list(map(str, load(str(path)).warnings))
    except ConfigError as error:
        return [*map(str, error.problems), str(error)]


@pytest.mark.parametrize("value", MISTYPED, ids=str)
def test_no_mistake_shows_a_value_that_may_be_a_secret(tmp_path, value):
    for name, config in places(value):
        text = yaml.safe_dump({"state_dir": str(tmp_path / "state"), **config})
        found = problems(tmp_path / "c.yaml", text)

        assert not [each for each in found if CANARY in each], name


@pytest.mark.parametrize(
    "text",
    [
        f"store postgresql://u:{CANARY}@h",
        f"sources:\n  main postgresql://u:{CANARY}@h",
        f"sources: {{postgresql://u:{CANARY}@h}}",
        f"sources: {{a: postgresql://u:{CANARY}@h, a: postgresql://u:{CANARY}@h}}",
        f"sources: {{u={CANARY}: x, u={CANARY}: x}}",
        f"postgresql://u:{CANARY}@h: x",
        f"store: !{CANARY}",
        f"store: *{CANARY}",
        f"store: &{CANARY}",
        f"store: @{CANARY}",
        f"store: '{CANARY}",
        f"store: postgresql: {CANARY}",
        f"jobs: {{a: {{shell: x, env: {{A={CANARY}}}}}}}",
        f"jobs: {{a: {{command: curl -u u:{CANARY} http://h}}}}",
    ],
)
def test_no_slip_in_yaml_shows_a_password(tmp_path, text):
    found = problems(tmp_path / "c.yaml", text + "\n")

    assert found
    assert not [each for each in found if CANARY in each]


def test_a_mistake_says_what_is_expected_and_how_long_the_value_is(tmp_path):
    found = problems(tmp_path / "c.yaml", f"store: {URL}\n")

    assert f"store: a text of {len(URL)} characters: expected sqlite:///PATH or a postgresql:// URL" in found[0]


def all_mistakes():
    jobs = {name: config["jobs"]["a"] for name, config in places(URL) if "jobs" in config}
    return {"store": URL, "sources": {"a": URL}, "jobs": {name.replace(" ", "-"): job for name, job in jobs.items()}}


def test_check_config_tells_no_password(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(all_mistakes()))
    path.chmod(0o600)
    command = [sys.executable, "-m", "schedulerd", "--check-config", "--config", str(path)]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) > 20
    assert CANARY not in done.stdout + done.stderr


def with_role(running, role):
    """Return a client on the TCP door, with the token of the admin, whose role is made another one."""
    path, line = running.folder / "state" / "tokens.json", re.search(r"listening on (http://\S+)", running.log())
    digest = hashlib.sha256((running.folder / "state" / "admin.token").read_bytes().strip()).hexdigest()
    tokens = [{"id": "admin", "sha256": "00" * 32, "role": "admin"}, {"id": role, "sha256": digest, "role": role}]
    path.write_text(json.dumps({"tokens": [{**each, "expires_at": None} for each in tokens]}))
    return Client(url=line[1], token=(running.folder / "state" / "admin.token").read_text().strip(), timeout=10)


def test_no_log_line_and_no_health_has_a_password_and_viewers_see_only_how_many_mistakes_there_are(daemon):
    running = daemon({})
    running.write({"jobs": {"a": {"shell": "true"}}, "api": {"listen": "127.0.0.1:0"}})
    running.start()
    running.reload(all_mistakes())
    own = running.client.get("health")["scheduler"]

    assert len(own["config_problems"]) == own["config_problem_count"] > 20
    assert "store: a text of" in running.log()
    assert CANARY not in json.dumps(own) + running.log()
    assert with_role(running, "operator").get("health")["scheduler"]["config_problems"] == own["config_problems"]
    seen = with_role(running, "viewer").get("health")["scheduler"]
    assert (seen["config_problems"], seen["config_problem_count"]) == ([], own["config_problem_count"])
    assert seen["config_notice"].startswith(f"the configuration has {own['config_problem_count']} mistakes;")
