"""No secret is seen of jobs that are gone: they end as they would have, and what they wrote is masked or not shown."""

import json
import os

import pytest

from schedulerd.cli.client import PREFIX, Client
from tests.support.daemon import RunningDaemon
from tests.support.waiting import until

SCRIPT = """
read line < "$FIFO"
echo "$WORD"
echo "{\\"details\\": {\\"word\\": \\"$WORD\\"}}" > "$SCHEDULERD_RESULT_FILE"
exit "$CODE"
"""
CODES = ("3", "7")
API = {"listen": "127.0.0.1:0"}


@pytest.fixture
def gone(tmp_path):
    """A daemon whose jobs, of which a run goes on each, were taken out of the file while it was down; and their runs."""
    (tmp_path / "word").write_text("hunter2")
    env = {"WORD": {"file": str(tmp_path / "word")}}
    jobs = {}
    for code in CODES:
        os.mkfifo(tmp_path / code)
        own = {**env, "CODE": code, "FIFO": str(tmp_path / code)}
        jobs[f"j{code}"] = {"shell": SCRIPT, "env": own, "success_exit_codes": [0, 7]}
    daemon = RunningDaemon(tmp_path, {"jobs": jobs, "api": API})
    try:
        daemon.start()
        runs = [daemon.client.post(f"jobs/j{code}/trigger", wait="false").body["run_id"] for code in CODES]
        until(lambda: len(list(tmp_path.glob("state/output/*/*.log"))) == len(CODES), "both starts")
        daemon.kill()
        daemon.write({"jobs": {}, "api": API})
        daemon.start()
        for code in CODES:
            (tmp_path / code).write_text("on\n")
        yield daemon, runs
    finally:
        daemon.close()


def ended(daemon, run_id):
    return until(lambda: (row := daemon.client.get(f"runs/{run_id}"))["finished_at"] and row, "the end")


def viewer_of(daemon):
    """Return a client over TCP whose token is a viewer's."""
    path = daemon.folder / "state" / "tokens.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({"tokens": [{**kept["tokens"][0], "id": "eye", "role": "viewer"}]}))
    url = (
        [line for line in daemon.log().splitlines() if "listening on http://" in line][-1]
        .split("listening on ")[1]
        .split()[0]
    )
    return Client(url=url, token=(daemon.folder / "state" / "admin.token").read_text().strip(), timeout=20)


def test_a_run_whose_job_is_gone_ends_as_it_would_have_and_shows_no_secret(gone):
    daemon, runs = gone
    rows = [ended(daemon, run_id) for run_id in runs]
    viewer = viewer_of(daemon)
    path = f"{PREFIX}/runs/{runs[0]}/output"

    assert [row["status"] for row in rows] == ["failed", "success"]
    assert rows[0]["error_message"] == "exit status 3; last output: ***"
    assert [row["details"]["word"] for row in rows] == ["***", "***"]
    assert viewer.ask("GET", path).body == "*******\n"
    assert "hunter2" not in daemon.log() + (daemon.folder / "state" / "keepsakes.json").read_text()

    (daemon.folder / "word").unlink()
    refused = viewer.ask("GET", path)
    assert (refused.status, "not all of its secrets can be resolved" in refused.body["detail"]) == (403, True)
    assert viewer.ask("GET", path, follow="true").status == 403
    assert daemon.client.ask("GET", path).status == 200


def test_of_a_run_whose_secrets_nobody_knows_any_more_no_text_is_kept(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    env = {"FIFO": str(tmp_path / "fifo"), "WORD": "hunter2", "CODE": "3"}
    daemon = RunningDaemon(tmp_path, {"jobs": {"job": {"shell": SCRIPT, "env": env}}})
    try:
        daemon.start()
        run_id = daemon.client.post("jobs/job/trigger", wait="false").body["run_id"]
        until(lambda: list(tmp_path.glob("state/output/*/*.log")), "the start")
        daemon.kill()
        (tmp_path / "state" / "keepsakes.json").unlink()
        daemon.write({"jobs": {}})
        daemon.start()
        (tmp_path / "fifo").write_text("on\n")
        row = ended(daemon, run_id)
    finally:
        daemon.close()

    assert row["error_message"] == "exit status 3"
    assert "its secrets are unknown" in row["details"]["not_kept"]
    assert "word" not in row["details"]
