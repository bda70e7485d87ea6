"""The ten endpoints, exactly as the founding API has them, on a real daemon over both doors."""

import json
import re
import socket
from pathlib import Path

import pytest

from schedulerd.api.responses import PREFIX
from schedulerd.api.routes import ROUTES
from schedulerd.cli.client import Client
from tests.support.daemon import RunningDaemon
from tests.support.waiting import until

JOBS = {
    "good": {"name": "Good", "description": "prints", "every": "1s", "shell": "echo hello"},
    "bad": {"shell": "echo oh no; exit 3"},
    "slow": {"shell": "sleep 30"},
    "nowhere": {"command": ["/no/such/program"]},
    "off": {"every": "1s", "enabled": False, "shell": "true"},
    "health": {"cron": "0 0 1 1 *", "health_check": {}},
    "keep": {"backup": {"source": "history"}},
}
JOB_FIELDS = {
    "job_id": str, "name": str, "description": (str, type(None)), "trigger_type": (str, type(None)),
    "next_run_time": (str, type(None)), "is_paused": bool, "is_running": bool, "enabled": bool,
    "last_result": (dict, type(None)),
}  # fmt: skip
RUN_FIELDS = {
    "job_id": str, "status": str, "started_at": str, "finished_at": (str, type(None)),
    "duration_seconds": (float, int, type(None)), "records_processed": int, "error_message": (str, type(None)),
    "details": dict, "run_id": str, "scheduled_at": (str, type(None)), "origin": str, "attempt": int,
    "lateness_seconds": (float, int, type(None)), "exit_code": (int, type(None)), "node": str,
}  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    made = RunningDaemon(
        tmp_path_factory.mktemp("api"), {"jobs": JOBS, "shutdown_grace": "1s", "api": {"listen": "127.0.0.1:0"}}
    )
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def url(running):
    line = next(line for line in running.log().splitlines() if "listening on http://" in line)
    return line.split("listening on ")[1].split()[0]


@pytest.fixture(scope="module")
def token(running):
    return (running.folder / "state" / "admin.token").read_text().strip()


@pytest.fixture(params=["socket", "tcp"])
def client(request, running, url, token):
    return running.client if request.param == "socket" else Client(url=url, token=token, timeout=60)


def assert_fields(value, fields):
    assert {name: type(value[name]) for name in fields if not isinstance(value[name], fields[name])} == {}


def test_the_list_has_every_job_with_every_field(client, running):
    running.until_run("good", "success")
    jobs = client.get("jobs")

    assert [job["job_id"] for job in jobs] == list(JOBS)
    for job in jobs:
        assert_fields(job, JOB_FIELDS)
    good = jobs[0]
    assert (good["name"], good["description"], good["trigger_type"], good["enabled"]) == ("Good", "prints", "interval", True)
    assert_fields(good["last_result"], RUN_FIELDS)
    assert good["next_run_time"].endswith("Z")
    off = jobs[4]
    assert (off["enabled"], off["next_run_time"], off["last_result"]) == (False, None, None)
    assert jobs[1]["trigger_type"] is None


def test_the_list_has_an_entity_tag_that_holds_until_something_changes(client):
    client.post("jobs/good/pause")
    until(lambda: not client.get("jobs/good")["is_running"], "the end of the run")
    first = client.ask("GET", f"{PREFIX}/jobs")
    again = client.ask("GET", f"{PREFIX}/jobs", headers={"If-None-Match": first.headers["etag"]})
    client.post("jobs/good/resume")
    changed = client.ask("GET", f"{PREFIX}/jobs", headers={"If-None-Match": first.headers["etag"]})

    assert (first.status, again.status, again.body, changed.status) == (200, 304, None, 200)


def test_one_job_is_the_same_as_in_the_list(client):
    (listed,) = [job for job in client.get("jobs") if job["job_id"] == "keep"]

    assert client.get("jobs/keep") == listed


def test_history_is_newest_first_and_limited(client, running):
    running.until_run("good", "success", 3)
    rows = client.get("jobs/good/history", limit=2)

    assert len(rows) == 2
    assert rows[0]["run_id"] > rows[1]["run_id"]
    for row in rows:
        assert_fields(row, RUN_FIELDS)
    assert rows[1]["details"]["output_bytes"] == 6
    older = client.get("jobs/good/history", before=rows[1]["run_id"])
    assert all(row["run_id"] < rows[1]["run_id"] for row in older)


def test_a_scheduled_run_starts_on_its_second(client, running):
    row = running.until_run("good", "success")[0]

    assert row["origin"] == "schedule"
    assert row["scheduled_at"].endswith(":" + row["scheduled_at"][-3:-1] + "Z")  # a whole second
    assert row["lateness_seconds"] >= 0


def test_a_trigger_waits_and_returns_the_result(client):
    good = client.post("jobs/good/trigger").body
    bad = client.post("jobs/bad/trigger").body

    assert (good["success"], good["job_id"], good["status"]) in [(True, "good", "success"), (False, "good", "skipped")]
    assert (bad["success"], bad["status"]) == (False, "failed")
    assert "exit status 3; last output: oh no" in bad["message"]
    assert_fields(bad["result"], RUN_FIELDS)
    assert (bad["result"]["exit_code"], bad["result"]["origin"], bad["result"]["scheduled_at"]) == (3, "manual", None)


def test_a_program_that_is_not_there_fails_its_run_and_not_the_daemon(client):
    body = client.post("jobs/nowhere/trigger").body

    assert (body["status"], body["success"]) == ("failed", False)
    assert body["result"]["error_message"] == "there is no program '/no/such/program'"
    assert client.get("jobs/nowhere")["last_result"]["status"] == "failed"


def test_a_trigger_need_not_wait_and_an_overlap_is_told_with_the_run_in_the_way(client):
    answer = client.post("jobs/slow/trigger", wait="false")
    assert answer.status in (200, 202)
    waited = client.post("jobs/slow/trigger", wait="0.1s")

    assert waited.status == 200
    assert (waited.body["success"], waited.body["status"]) == (False, "skipped")
    (run,) = [run for run in client.get("running") if run["job_id"] == "slow"]
    assert waited.body["run_id"] == run["run_id"]
    assert_fields(run, RUN_FIELDS)
    assert (run["status"], run["finished_at"]) == ("running", None)
    assert client.get("jobs/slow")["is_running"]


def test_a_repeated_idempotency_key_is_the_first_run(client):
    key = {"Idempotency-Key": f"deploy-{id(client)}"}
    first, second = (client.post("jobs/bad/trigger", headers=key).body for _ in range(2))

    assert first == second


def test_pause_and_resume_are_idempotent_and_say_what_they_did(client):
    first = client.post("jobs/off/pause", {"reason": "holidays", "until": "2099-01-01T00:00:00Z"}).body
    second = client.post("jobs/off/pause").body

    assert first == {"success": True, "job_id": "off", "status": "paused", "message": "paused until 2099-01-01T00:00:00Z"}
    assert second["message"] == "paused until it is resumed; it was paused already, until 2099-01-01T00:00:00Z"
    assert client.get("jobs/off")["is_paused"]
    assert [client.post("jobs/off/resume").body["status"] for _ in range(2)] == ["active", "active"]
    assert not client.get("jobs/off")["is_paused"]


def test_a_paused_job_is_not_started_on_its_own_but_can_be_triggered(client, running):
    client.post("jobs/good/pause")
    count = len(running.until_run("good", "skipped"))
    running.until_run("good", "skipped", count + 1)
    newest = running.history("good", limit=1)[0]
    by_hand = client.post("jobs/good/trigger").body
    client.post("jobs/good/resume")

    assert (newest["status"], newest["details"]["reason"]) == ("skipped", "paused")
    assert by_hand["success"]


def test_what_a_pause_skipped_last_is_run_when_asked(client, running):
    before = len(running.history("good", limit=100, status="success"))
    client.post("jobs/good/pause")
    running.until_run("good", "skipped", len(running.history("good", limit=100, status="skipped")) + 1)
    client.post("jobs/good/resume", catch_up="latest")

    rows = running.until_run("good", "success", before + 1)
    assert "catch_up" in {row["origin"] for row in rows}


def test_health_is_the_last_check_with_its_age(client):
    refreshed = client.get("health", refresh="true")
    health = client.get("health")

    assert health["status"] in ("healthy", "degraded")
    assert set(health["services"]) == {"postgresql", "redis", "storage", "backups"}
    assert health["services"]["postgresql"] == {"status": "not_configured"}
    assert health["services"]["storage"]["latency_ms"] >= 0
    assert health["system"]["memory_total_bytes"] > 0
    assert health["checked_at"] == refreshed["checked_at"]
    assert health["age_seconds"] >= 0
    assert health["scheduler"]["is_well"]


def test_backups_are_listed_newest_first_and_only_while_they_are_there(client):
    made = [client.post("jobs/keep/trigger").body["result"]["details"]["filename"] for _ in range(2)]
    backups = client.get("backups")

    assert [one["filename"] for one in backups[:2]] == made[::-1]
    fields = {"filename": str, "path": str, "size_bytes": int, "size_mb": float, "created_at": str}
    assert_fields(backups[0], fields)
    assert backups[0]["size_mb"] == round(backups[0]["size_bytes"] / 2**20, 2)
    Path(backups[0]["path"]).unlink()
    assert made[1] not in [one["filename"] for one in client.get("backups")]


def test_stats_count_jobs_and_runs(client):
    for job_id in ("good", "bad"):
        client.post(f"jobs/{job_id}/trigger")
    stats = client.get("stats")

    assert stats["total_jobs"] == len(JOBS)
    assert stats["enabled_jobs"] == len(JOBS) - 1
    assert stats["successful_runs"] == stats["runs_by_status"]["success"] > 0
    assert 0 < stats["success_rate"] < 1
    assert stats["uptime_seconds"] > 0
    assert stats["last_24h"]["total_runs"] <= stats["total_runs"]


# Bad input


@pytest.mark.parametrize("limit", ["0", "101", "abc", "", "-1", "1.5", "٣", "1e2", "99999999999999999999"])
def test_a_limit_outside_its_bounds_is_422_in_the_agreed_shape(client, limit):
    answer = client.ask("GET", f"{PREFIX}/jobs/good/history", limit=limit)

    assert answer.status == 422
    (problem,) = answer.body["detail"]
    assert set(problem) == {"type", "loc", "msg", "input"}
    assert (problem["loc"], problem["input"]) == (["query", "limit"], limit)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "jobs/none"), ("GET", "jobs/none/history"), ("POST", "jobs/none/trigger"), ("POST", "jobs/none/pause"),
        ("POST", "jobs/none/resume"), ("GET", "jobs/..%2f..%2fetc%2fpasswd"), ("GET", "jobs/a%00b"), ("GET", "nothing"),
        ("GET", "jobs/%D8%A7/history"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_404(client, method, path):
    answer = client.ask(method, f"{PREFIX}/{path}")

    assert answer.status == 404
    assert isinstance(answer.body["detail"], str)


def test_a_wrong_method_is_405_and_says_which_is_right(client):
    answer = client.ask("DELETE", f"{PREFIX}/jobs")

    assert (answer.status, answer.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize(
    ("verb", "body", "loc"),
    [
        ("trigger", b"{", ["body"]),
        ("trigger", b"[1]", ["body"]),
        ("trigger", b"\xff\xfe", ["body"]),
        ("trigger", b"[" * 60000, ["body"]),
        ("trigger", b'{"params": 3}', ["body", "params"]),
        ("trigger", b'{"params": {"command": "id"}}', ["body", "params", "command"]),
        ("pause", b'{"reason": 3}', ["body", "reason"]),
        ("pause", b'{"until": "soon"}', ["body", "until"]),
        ("pause", b'{"until": "2099-01-01T00:00:00"}', ["body", "until"]),
        ("pause", b'{"until": "2001-01-01T00:00:00Z"}', ["body", "until"]),
        ("pause", b'{"untill": "2099-01-01T00:00:00Z"}', ["body", "untill"]),
        ("trigger", b'{"command": "id"}', ["body", "command"]),
        ("pause", b'{"until": "9999-12-31T23:59:59-14:00"}', ["body", "until"]),
        ("pause", b'{"until": "0001-01-01T00:00:00+14:00"}', ["body", "until"]),
        ("pause", b'{"reason": "\\ud800"}', ["body"]),
        ("trigger", b'{"params": ' + b'{"a":' * 990 + b"1" + b"}" * 990 + b"}", None),
        ("pause", b'{"reason": NaN}', ["body"]),
        ("pause", b'{"until": 1e999}', ["body", "until"]),
        ("resume", b"no", ["body"]),
        ("resume", b'{"x": 1}', ["body", "x"]),
    ],
)
def test_a_bad_body_is_422_and_changes_nothing(client, verb, body, loc):
    answer = client.ask("POST", f"{PREFIX}/jobs/off/{verb}", body)

    assert answer.status == 422
    assert loc is None or answer.body["detail"][0]["loc"] == loc
    assert client.get("jobs/off/history") == []
    assert not client.get("jobs/off")["is_paused"]


@pytest.mark.parametrize(
    ("path", "query"),
    [("jobs/off/trigger", {"wait": "soon"}), ("jobs/off/resume", {"catch_up": "all"})],
)
def test_a_bad_query_is_422(client, path, query):
    assert client.ask("POST", f"{PREFIX}/{path}", **query).status == 422


def test_a_page_before_something_that_is_no_run_is_422(client):
    assert client.ask("GET", f"{PREFIX}/jobs/good/history", before="zzz").status == 422


def test_a_bad_idempotency_key_is_422(client):
    assert client.ask("POST", f"{PREFIX}/jobs/off/trigger", headers={"Idempotency-Key": "a b"}).status == 422


def test_a_body_of_another_type_is_415_and_a_large_one_413(client):
    form = client.ask("POST", f"{PREFIX}/jobs/off/pause", b"reason=x", {"Content-Type": "application/x-www-form-urlencoded"})
    zipped = client.ask("POST", f"{PREFIX}/jobs/off/pause", b"{}", {"Content-Encoding": "gzip"})
    large = client.ask("POST", f"{PREFIX}/jobs/off/pause", b'{"reason": "' + b"x" * 70000 + b'"}')

    assert (form.status, zipped.status, large.status) == (415, 415, 413)


# Who may do what

NO_RUN = "00000000-0000-7000-8000-000000000000"
NAMES = {"{job_id}": "off", "{run_id}": NO_RUN, "{filename}": NO_RUN}
PATHS = [(route.method, re.sub(r"\{\w+\}", lambda found: NAMES[found[0]], route.path)) for route in ROUTES]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic YWRtaW46YWRtaW4=", "bearer tök", "Token x", "Bearer a b"],
)
def test_without_a_good_token_every_endpoint_is_401(url, method, path, header):
    answer = Client(url=url, timeout=10).ask(
        method, path, headers={} if header is None else {"Authorization": header.encode()}
    )

    assert answer.status in (401, 429)  # 429 when this test has failed too often already
    if answer.status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert set(answer.body) == {"detail"}


def test_an_unknown_path_is_401_too(url):
    assert Client(url=url, timeout=10).ask("GET", "/anything").status in (401, 429)


def test_a_token_in_the_url_is_not_looked_at(url, token):
    assert Client(url=url, timeout=10).ask("GET", f"{PREFIX}/jobs", token=token, access_token=token).status in (401, 429)


def test_after_many_failures_a_good_token_still_gets_in(url, token):
    for _ in range(12):
        last = Client(url=url, token="wrong", timeout=10).ask("GET", f"{PREFIX}/jobs")

    assert (last.status, last.headers["retry-after"]) == (429, "10")
    assert Client(url=url, token=token, timeout=10).ask("GET", f"{PREFIX}/jobs").status == 200


def test_liveness_and_readiness_need_no_login_and_tell_nothing_else(url, running):
    for client in (Client(url=url), running.client):
        assert client.ask("GET", "/healthz").body == {"status": "ok"}
        assert client.ask("GET", "/readyz").body == {"status": "ready"}


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.nip.io", "localhost.", ""])
def test_another_host_name_is_421_on_tcp(url, token, host):
    answer = Client(url=url, token=token, timeout=10).ask("GET", f"{PREFIX}/jobs", headers={"Host": host})

    assert answer.status in (400, 421)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://["},
        {"Origin": "localhost"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_page_of_another_site_changes_nothing(client, headers):
    assert client.ask("POST", f"{PREFIX}/jobs/off/pause", headers=headers).status == 403
    assert not client.get("jobs/off")["is_paused"]


def test_every_answer_has_the_safe_headers(client):
    for path in ("/healthz", f"{PREFIX}/jobs", f"{PREFIX}/jobs/none", "/nothing"):
        headers = client.ask("GET", path).headers
        assert "server" not in headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"


def _of_a_viewer(method, path):
    return 403 if method != "GET" else 404 if NO_RUN in path else 200


def test_roles_decide_what_a_token_may_do(running, url, token):
    path = running.folder / "state" / "tokens.json"
    kept = json.loads(path.read_text())
    viewer = {**kept["tokens"][0], "id": "eye", "role": "viewer"}
    admin = {**kept["tokens"][0], "sha256": "00" * 32}
    path.write_text(json.dumps({"tokens": [admin, viewer]}))
    client = Client(url=url, token=token, timeout=10)
    try:
        statuses = {(method, target): client.ask(method, target).status for method, target in PATHS}
        refresh = client.ask("GET", f"{PREFIX}/health", refresh="true").status
    finally:
        path.write_text(json.dumps(kept))

    assert {key: status for key, status in statuses.items() if status != _of_a_viewer(*key)} == {}
    assert refresh == 403


def test_rubbish_on_the_socket_costs_one_answer(running):
    for rubbish in (b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(running.socket_path))
            connection.sendall(rubbish)
            answer = connection.recv(65536)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
        assert b"Traceback" not in answer
    assert running.client.ask("GET", "/healthz").status == 200


def test_the_log_has_no_traceback_and_no_token(running, token):
    assert "Traceback" not in running.log()
    assert token not in running.log()
