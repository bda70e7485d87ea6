"""The job of the guide from cron that reports failures, run against a server."""

import re
import shutil
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from tests.support.daemon import RunningDaemon
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "from-cron.md").read_text()


class Listener(BaseHTTPRequestHandler):
    """Accepts messages once the gate is open. The first is refused and must be sent again."""

    gate = threading.Event()
    messages: ClassVar[list[tuple[str, str]]] = []
    answers = iter([503])

    def do_POST(self) -> None:
        self.gate.wait()
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        status = next(self.answers, 200)
        if status == 200:
            self.messages.append((self.headers["Title"], text))
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def job_of_the_guide(name):
    blocks = re.findall(r"^( *)```yaml\n(.*?)^\1```$", GUIDE, re.MULTILINE | re.DOTALL)
    jobs = [yaml.safe_load(textwrap.dedent(text)).get("jobs", {}) for _, text in blocks]
    return next(each[name] for each in jobs if name in each)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_every_failure_is_reported_also_two_at_once_and_after_a_refusal(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    notify = {**job_of_the_guide("notify"), "cwd": str(ROOT)}
    for name, here in (
        ("schedulerctl ", f"{sys.executable} -m schedulerd.cli --socket {tmp_path}/state/schedulerd.sock "),
        ("https://ntfy.example.org/", f"http://127.0.0.1:{server.server_port}/"),
    ):
        assert name in notify["shell"]
        notify["shell"] = notify["shell"].replace(name, here)
    failing = {name: {"shell": "exit 1"} for name in notify["after"]["any"]}
    daemon = RunningDaemon(tmp_path, {"jobs": {"notify": notify, **failing}}).start()
    try:
        runs = {name: daemon.client.post(f"jobs/{name}/trigger").body["result"]["run_id"] for name in failing}
        until(lambda: len(daemon.history("notify")) == len(failing), "a row for each failure")
        Listener.gate.set()
        daemon.until_run("notify", "success", count=len(failing))
    finally:
        daemon.close()
        server.shutdown()
        server.server_close()

    assert [title for title, _ in Listener.messages] == [f"{name} failed" for name in failing]
    assert [name for (_, text), name in zip(Listener.messages, failing, strict=True) if runs[name] not in text] == []
