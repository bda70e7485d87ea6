"""S23, S30: names, outputs, messages, reasons and ids are only text wherever they are shown.

They are no template (S23), begin no line of their own and steer no terminal (S30).
"""

import json
import logging
import re
import socket
import subprocess
import sys

import pytest

from schedulerd.core.clock import SystemClock
from schedulerd.host.systemd import Notifier
from schedulerd.logs import Stderr
from tests.support.daemon import RunningDaemon

TEMPLATES = "{x.__class__} {0} ${jndi:ldap://h/a} $HOME %n%s%(a)s {{7*7}} <%= 7*7 %> #{7*7}"
FORGED = "2026-12-01 00:00:00,000 INFO    forged"
CONTROLS = f"a\n{FORGED}\r{FORGED}\x1b[2J\x1b]0;own\x07\x85{FORGED}\u2028{FORGED}\u2029\x9b2J\u202eesrever\u2066\x0b\x0c\x7f"
HOSTILE = TEMPLATES + CONTROLS
RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) ")
SAYS = """python3 -c 'import json, os, sys
given = os.environ["SCHEDULERD_PARAM_TEXT"] * int(os.environ["SCHEDULERD_PARAM_TIMES"])
json.dump({"message": given, "details": {given[:20]: given}}, open(os.environ["SCHEDULERD_RESULT_FILE"], "w"))
print(given)
sys.exit(int(os.environ["SCHEDULERD_PARAM_STATUS"]))'
"""
PARAMS = {
    "text": {"multiline": True, "default": HOSTILE}, "times": {"type": "integer", "default": 1},
    "status": {"type": "integer", "default": 3},
}  # fmt: skip
CALL = {"python": "ours:fail", "params": {"text": {"multiline": True, "default": HOSTILE}}}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    folder.chmod(0o755)
    (folder / "ours.py").write_text("def fail(text):\n    raise ValueError(text)\n")
    jobs = {
        "says": {"name": HOSTILE, "description": HOSTILE, "shell": SAYS, "params": PARAMS},
        "raises": {**CALL, "python_path": str(folder)},
        "mute": {"shell": 'printf %s "$SCHEDULERD_PARAM_TEXT"; exit 3', "params": PARAMS},
    }
    made = RunningDaemon(folder, {"jobs": jobs}).start()
    for job_id in jobs:
        made.client.post(f"jobs/{job_id}/trigger")
    made.client.post("jobs/says/pause", {"reason": HOSTILE})
    made.client.ask("POST", "/api/v1/scheduler/jobs/a%0A%1B[2J/trigger", headers={"Idempotency-Key": "{0}%s"})
    yield made
    made.close()


def newest(running, job_id):
    return running.history(job_id, limit=1)[0]


def test_s23_templates_come_out_as_they_went_in(running):
    job, said = running.job("says"), newest(running, "says")

    assert job["name"].startswith(TEMPLATES)
    assert job["description"].startswith(TEMPLATES)
    for text in (
        said["error_message"],
        newest(running, "raises")["error_message"],
        newest(running, "mute")["error_message"],
    ):
        assert TEMPLATES in text
    assert running.client.ask("GET", f"/api/v1/scheduler/runs/{said['run_id']}/output").body.startswith(TEMPLATES)
    assert TEMPLATES in running.log()


@pytest.mark.parametrize("path", ["jobs/%s", "jobs/%s/trigger", "runs/%s", "backups/%s", "runs?status=%s"])
def test_s23_an_error_is_no_template_either(running, path):
    given = "{x.__class__}${jndi:x}%25n{{7*7}}"
    answer = running.client.ask("GET", f"/api/v1/scheduler/{path % given.replace('{', '%7B').replace('}', '%7D')}")

    assert "49" not in json.dumps(answer.body)
    assert "class '" not in json.dumps(answer.body)


def test_s30_each_record_of_the_log_is_one_line_without_control_characters(running):
    lines = running.log().split("\n")[:-1]

    assert "forged" in running.log()
    assert [line for line in lines if not RECORD.match(line)] == []
    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if line.startswith(FORGED)] == []


def test_s30_a_megabyte_is_one_line_of_bounded_length(running):
    before = len(running.log())
    done = running.client.post("jobs/says/trigger", {"params": {"text": "xyz\n\x1b" * 200, "times": 1000}})

    assert done.body["status"] == "failed"
    new = running.log()[before:]
    assert len(new.split("\n")) == 3  # it was triggered, and failed
    assert max(map(len, new.split("\n"))) < 9000
    assert len(newest(running, "says")["error_message"]) < 9000


WORDS = [("list",), ("show", "says"), ("history", "says"), ("history", "raises"), ("history", "mute"), ("run", "says"),
         ("run", "a\n\x1b[2J"), ("stats",), ("health",), ("next", "says"), ("why", "says"),
         ("pause", "says", "--reason", HOSTILE),
         ("backups", "show", "a\n\x1b[2J"), ("--json", "show", "says")]  # fmt: skip


@pytest.mark.parametrize("words", WORDS, ids=lambda words: ascii(" ".join(words))[:30])
def test_s30_what_schedulerctl_prints_begins_no_line_for_others_and_steers_no_terminal(running, words):
    command = [sys.executable, "-m", "schedulerd.cli", "--socket", str(running.socket_path), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).split("\n")

    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if line.startswith(FORGED)] == []
    assert "Traceback" not in done.stderr


def raised(text):
    try:
        raise ValueError(text) from KeyError(text)
    except ValueError:
        return sys.exc_info()


@pytest.mark.parametrize("in_journal", [False, True])
def test_s30_a_traceback_has_one_line_for_each_error_whatever_it_quotes(in_journal):
    record = logging.LogRecord("schedulerd", logging.ERROR, __file__, 1, "%s failed", (HOSTILE,), raised(HOSTILE))
    lines = Stderr(2, in_journal).format(record).removeprefix("<3>").split("\n<3>" if in_journal else "\n")

    assert [line.split()[0] for line in lines if not line.startswith("  ")][1:] == [
        "KeyError:", "The", "Traceback", "ValueError:",
    ]  # fmt: skip
    assert [line for line in lines if not line.isprintable()] == []


def test_s30_a_mistake_is_one_line_whatever_it_names(tmp_path):
    path, key = tmp_path / "c.yaml", json.dumps(CONTROLS)
    path.write_text(f"{key}: 1\n{key}: 2\ncalendars: {{c: {json.dumps('/' + CONTROLS)}}}\njobs:\n  {key}: {{shell: x}}\n")
    path.chmod(0o600)
    command = [sys.executable, "-m", "schedulerd", "--check-config", "--config", str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stderr.split("\n")[:-1]

    assert len(lines) >= 4
    assert [line for line in lines if not line.isprintable() or not line.startswith("/")] == []


def test_s30_a_status_tells_systemd_nothing_else(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier(SystemClock())
        notifier.starting("a server said: no\nMAINPID=1\nWATCHDOG=trigger")
        notifier.ready("none\nSTOPPING=1")
        said = [manager.recv(4096).decode().split("\n") for _ in range(2)]
        notifier._notifier.socket.close()

    assert [[line.partition("=")[0] for line in each] for each in said] == [
        ["STATUS", "EXTEND_TIMEOUT_USEC"], ["READY", "STATUS"],
    ]  # fmt: skip
