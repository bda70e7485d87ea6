"""Draw the picture of a terminal in the README from a recorded session.

python3 packaging/picture.py            writes docs/terminal.svg from docs/terminal.txt
python3 packaging/picture.py record     records docs/terminal.txt: runs a daemon and the commands below, for a minute
"""

from __future__ import annotations

import html
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT, SVG = ROOT / "docs" / "terminal.txt", ROOT / "docs" / "terminal.svg"
COLUMNS = 110
LINE, CHARACTER, MARGIN, BAR = 19, 8.43, 18, 34  # pixels; a monospace character of 14 px is 0.602 em wide
PROMPT = "$ "

JOBS = r"""
timezone: Europe/Rome
state_dir: state
jobs:
  import_orders:
    every: 10s
    retries: 2
    retry_delay: 3s
    shell: |
      test "$SCHEDULERD_ATTEMPT" -gt 1 || { echo "the warehouse does not answer"; exit 75; }
      echo '{"records_processed": 120}' > "$SCHEDULERD_RESULT_FILE"
  nightly_dump:
    cron: "30 2 * * *"
    shell: 'echo "dumping 3 databases"; sleep 1; echo "412 MB written"'
  report:
    after: {job: nightly_dump, when: success}
    command: [echo, "report sent"]
"""
COMMANDS = (
    "schedulerctl run nightly_dump --follow",
    "schedulerctl list",
    "schedulerctl why import_orders",
    "schedulerctl why nightly_dump 2027-03-28T02:30",
)


def svg(session: str) -> str:
    """Return a recorded session as an SVG picture of a terminal."""
    lines = session.splitlines()
    width, height = round(COLUMNS * CHARACTER) + 2 * MARGIN, BAR + len(lines) * LINE + MARGIN
    drawn = "\n".join(_line(line, BAR + (number + 1) * LINE - 5) for number, line in enumerate(lines))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<title>A terminal with schedulerctl</title>
<style>text {{ font: 14px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #d7dce2; white-space: pre }}
.command {{ fill: #8fd18f; font-weight: bold }}</style>
<rect width="{width}" height="{height}" rx="8" fill="#1d2229"/>
<circle cx="20" cy="18" r="5" fill="#e06c75"/>
<circle cx="38" cy="18" r="5" fill="#e5c07b"/>
<circle cx="56" cy="18" r="5" fill="#98c379"/>
{drawn}
</svg>
"""


def _line(text: str, y: int) -> str:
    kind = ' class="command"' if text.startswith(PROMPT) else ""
    return f'<text xml:space="preserve" x="{MARGIN}" y="{y}"{kind}>{html.escape(text, quote=False)}</text>' if text else ""


def record() -> str:
    """Record a session: the commands and their output on a terminal of COLUMNS columns."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "jobs.yaml").write_text(JOBS)
        (Path(folder) / "jobs.yaml").chmod(0o600)
        socket = f"{folder}/state/schedulerd.sock"
        env = {**os.environ, "SCHEDULERD_SOCKET": socket, "TZ": "Europe/Rome", "PYTHONPATH": str(ROOT)}
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        command = [sys.executable, "-m", "schedulerd", "--config", f"{folder}/jobs.yaml", "--log-level", "error"]
        with subprocess.Popen(command, env=env, cwd=folder) as daemon:
            time.sleep(25)  # some runs of import_orders
            shown = [f"{PROMPT}{line}\n{_output(line, env)}" for line in COMMANDS]
            daemon.send_signal(signal.SIGTERM)
    return "\n".join(shown)


def _output(command: str, env: dict[str, str]) -> str:
    """Return the output of a command, with long lines broken between words."""
    done = subprocess.run(
        shlex.split(command), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    broken = (textwrap.wrap(line.rstrip(), COLUMNS) or [""] for line in done.stdout.splitlines())
    return "".join(f"{part}\n" for parts in broken for part in parts)


def main(words: list[str]) -> int:
    """Record the session on request, and draw it."""
    if words == ["record"]:
        TEXT.write_text(record(), encoding="utf-8")
    SVG.write_text(svg(TEXT.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
