"""`schedulerctl` as a user calls it, against a daemon."""

import json
import os
import re
import subprocess
import sys
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from zoneinfo import ZoneInfo

import pytest

from tests.support.daemon import RunningDaemon

JOBS = {
    "good": {"name": "Good", "every": "1h", "shell": "echo hello"},
    "bad": {"shell": "printf 'a\\033[31mred'; exit 7"},
    "health": {"health_check": {}},
    "keep": {"backup": {"source": "history"}},
    "proof": {"restore_drill": {"of": "keep", "assertions": ["SELECT count(*) > 0 FROM runs"]}},
    "days": {"analytics": {}},
}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    made = RunningDaemon(tmp_path_factory.mktemp("ctl"), {"jobs": JOBS, "api": {"listen": "127.0.0.1:0"}})
    made.start()
    yield made
    made.close()


@pytest.fixture
def ctl(running):
    def call(*words, env=None, address=None):
        address = address or ["--socket", str(running.socket_path)]
        return subprocess.run(
            [sys.executable, "-m", "schedulerd.cli", *address, *words], capture_output=True, text=True, check=False,
            env={**os.environ, **(env or {})},
        )  # fmt: skip

    return call


def test_run_exits_with_the_exit_status_of_the_job(ctl):
    good, bad = ctl("run", "good"), ctl("run", "bad")

    assert (good.returncode, good.stdout.startswith("good: succeeded after")) == (0, True)
    assert bad.returncode == 7
    assert "exit status 7" in bad.stdout


def test_list_and_history_are_tables(ctl):
    ctl("run", "bad")
    listed, history = ctl("list"), ctl("history", "bad", "--limit", "1")

    assert listed.stdout.splitlines()[0].split() == ["JOB", "STATE", "NEXT", "LAST", "ENDED", "NOTE"]
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == list(JOBS)
    assert len(history.stdout.splitlines()) == 2
    assert "failed" in history.stdout
    assert "\x1b" not in history.stdout


def test_every_command_has_json(ctl):
    for words in (["list"], ["show", "good"], ["history", "good"], ["running"], ["health"], ["backups"], ["stats"]):
        json.loads(ctl(*words, "--json").stdout)
        json.loads(ctl("--json", *words).stdout)


def test_every_command_has_a_table(ctl):
    ctl("run", "keep")
    for words in (["list"], ["show", "good"], ["history", "good"], ["running"], ["health"], ["backups"], ["stats"]):
        assert ctl(*words).stdout.splitlines()[0].isupper()


def test_backups_are_listed_verified_drilled_held_and_released(ctl):
    ctl("run", "keep")
    listed = json.loads(ctl("backups", "list", "--job", "keep", "--limit", "1", "--json").stdout)
    (name,) = (one["filename"] for one in listed)
    assert re.search(r" \d+\.\d KB  ", ctl("backups").stdout)

    assert ctl("backups", "verify", name).stdout == f"{name}: verified\n"
    assert "1 assertion holds" in ctl("backups", "drill", "keep").stdout
    assert ctl("backups", "hold", name, "--reason", "audit").stdout == f"{name}: proven, held\n"
    assert "proven, held" in ctl("backups", "--job", "keep").stdout
    assert "audit" in ctl("backups", "show", name).stdout
    assert ctl("backups", "release", name).stdout == f"{name}: proven\n"
    assert json.loads(ctl("backups", "--job", "none", "--json").stdout) == []


def test_a_damaged_backup_sets_the_exit_status(ctl):
    ctl("run", "keep")
    (backup,) = json.loads(ctl("backups", "--limit", "1", "--json").stdout)
    with open(backup["path"], "r+b") as file:
        file.write(b"x")
    damaged = ctl("backups", "verify", backup["filename"])

    assert (damaged.returncode, "is damaged" in damaged.stdout) == (1, True)
    assert "in doubt" in ctl("backups").stdout
    assert "no backup 'none'" in ctl("backups", "verify", "none").stderr
    assert "no job is a restore drill of 'good'" in ctl("backups", "drill", "good").stderr


def test_checks_and_daily_statistics_are_tables(ctl):
    ctl("run", "health")
    ctl("run", "days")

    assert ctl("health", "--history").stdout.splitlines()[0].startswith("CHECKED")
    assert "ago" in ctl("health").stdout
    stats = ctl("stats", "--days", "30").stdout
    assert stats.startswith("DAY")
    assert "no statistics of these days yet: today is not included" in stats
    assert json.loads(ctl("stats", "--days", "30", "--json").stdout)["days"] == []
    assert "query.days" in ctl("stats", "--days", "4000").stderr


def test_pause_and_resume_report_the_result(ctl, running):
    assert ctl("pause", "good", "--reason", "why not").stdout == "good: paused until it is resumed\n"
    assert running.job("good")["pause"]["reason"] == "why not"
    assert ctl("resume", "good").stdout == "good: resumed\n"


def test_a_pause_may_be_given_as_a_duration_and_is_shown_in_the_list(ctl, running):
    ctl("pause", "good", "--until", "2h", "--reason", "the printer is broken")
    pause, listed = running.job("good")["pause"], ctl("list", env={"TZ": "UTC"}).stdout
    ctl("resume", "good")
    took = datetime.fromisoformat(pause["until"]) - datetime.fromisoformat(pause["paused_at"])

    assert round(took.total_seconds(), -1) == 7200
    assert f"paused until {pause['until'][:19]}Z by {pause['by']}: the printer is broken" in listed
    assert "body.until" in ctl("pause", "good", "--until", "90").stderr
    assert "expected a duration such as 2h" in ctl("pause", "good", "--until", "tomorrow").stderr


def test_times_are_local_in_tables_and_utc_in_json(ctl):
    ctl("run", "good")
    (run,) = json.loads(ctl("history", "good", "--limit", "1", "--json").stdout)
    local = datetime.fromisoformat(run["started_at"]).astimezone(ZoneInfo("Asia/Kolkata")).isoformat(timespec="seconds")

    assert run["started_at"].endswith("Z")
    for words in (["history", "good", "--limit", "1"], ["show", run["run_id"]]):
        assert local in ctl(*words, env={"TZ": "Asia/Kolkata"}).stdout


def test_no_table_contains_json(ctl):
    ctl("run", "keep")
    (backup,) = json.loads(ctl("backups", "--limit", "1", "--json").stdout)
    ctl("backups", "verify", backup["filename"])

    for words in (["show", "keep"], ["stats"], ["backups", "show", backup["filename"]]):
        assert "{" not in ctl(*words).stdout


def test_errors_name_the_remedy(ctl):
    unknown = ctl("run", "none")
    limit = ctl("history", "good", "--limit", "0")
    nobody = ctl("list", address=["--socket", "/no/such/socket"])

    assert (unknown.returncode, unknown.stderr) == (1, "schedulerctl: there is no job 'none'\n")
    assert "query.limit" in limit.stderr
    assert (nobody.returncode, "is schedulerd running?" in nobody.stderr) == (3, True)


def test_over_tcp_the_token_comes_from_the_environment(ctl, running):
    line = next(line for line in running.log().splitlines() if "listening on http://" in line)
    address = ["--url", line.split("listening on ")[1].split()[0]]
    token = (running.folder / "state" / "admin.token").read_text().strip()

    assert ctl("list", address=address, env={"SCHEDULERD_TOKEN": token}).returncode == 0
    assert "a token is needed" in ctl("list", address=address, env={"SCHEDULERD_TOKEN": ""}).stderr


class _AnotherServer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404 if self.server.is_strict else 200)
        self.end_headers()
        self.wfile.write(b"<html>Welcome</html>")

    def log_message(self, *words):
        pass


@pytest.mark.parametrize("is_strict", [True, False])
def test_another_server_is_not_mistaken_for_a_daemon(ctl, is_strict):
    with ThreadingHTTPServer(("127.0.0.1", 0), _AnotherServer) as server:
        server.is_strict = is_strict
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        found = ctl("list", address=["--url", url])
        server.shutdown()

    assert found.returncode == 3
    assert found.stderr.startswith(f"schedulerctl: no schedulerd answers at {url}")
    assert "html" not in found.stderr
