"""What the guide from cron says to write, written and tried."""

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
GUIDE = (ROOT / "contrib" / "from-cron.md").read_text()


class Listener(BaseHTTPRequestHandler):
    """Takes messages once the gate is open, but for the first one, which has to be sent again."""

    gate = threading.Event()
    told: ClassVar[list[tuple[str, str]]] = []
    answers = iter([503])

    def do_POST(self) -> None:
        self.gate.wait()
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        status = next(self.answers, 200)
        if status == 200:
            self.told.append((self.headers["Title"], text))
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def job_of_the_guide(name):
    blocks = re.findall(r"^( *)```yaml\n(.*?)^\1```$", GUIDE, re.MULTILINE | re.DOTALL)
    jobs = [yaml.safe_load(textwrap.dedent(text)).get("jobs", {}) for _, text in blocks]
    return next(each[name] for each in jobs if name in each)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_every_failure_is_told_also_of_two_at_once_and_when_nobody_took_it_at_first(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tell = {**job_of_the_guide("tell"), "cwd": str(ROOT)}
    for name, here in (
        ("schedulerctl ", f"{sys.executable} -m schedulerd.cli --socket {tmp_path}/state/schedulerd.sock "),
        ("https://ntfy.example.org/", f"http://127.0.0.1:{server.server_port}/"),
    ):
        assert name in tell["shell"]
        tell["shell"] = tell["shell"].replace(name, here)
    failing = {name: {"shell": "exit 1"} for name in tell["after"]["any"]}
    daemon = RunningDaemon(tmp_path, {"jobs": {"tell": tell, **failing}}).start()
    try:
        runs = {name: daemon.client.post(f"jobs/{name}/trigger").body["result"]["run_id"] for name in failing}
        until(lambda: len(daemon.history("tell")) == len(failing), "a row for each failure")
        Listener.gate.set()
        daemon.until_run("tell", "success", count=len(failing))
    finally:
        daemon.close()
        server.shutdown()
        server.server_close()

    assert [title for title, _ in Listener.told] == [f"{name} failed" for name in failing]
    assert [name for (_, text), name in zip(Listener.told, failing, strict=True) if runs[name] not in text] == []
