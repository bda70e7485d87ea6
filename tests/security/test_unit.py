"""S35: the unit and its drop-ins are as closed as systemd can see, and what is open has its reason beside it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "contrib" / "systemd"
SERVICE = UNITS / "schedulerd.service"
EXPOSURE = {
    "": 2.0,
    "strict.conf": 1.7,
    "as-root.conf": 3.5,
    "relaxed.conf": 9.2,
}  # of 10, at most; "" is the unit as shipped
EXPLAINED = ["", "as-root.conf"]  # what these leave open is told, each by its name

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def judged(folder, drop_in, *words):
    """Return what systemd says of the unit with a drop-in ("": as shipped)."""
    shutil.copy(SERVICE, folder)
    if drop_in:
        (folder / "schedulerd.service.d").mkdir()
        shutil.copy(UNITS / drop_in, folder / "schedulerd.service.d")
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", *words, folder / SERVICE.name]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_systemd
@pytest.mark.parametrize("drop_in", EXPOSURE)
def test_s35_the_exposure_is_what_the_documentation_says(tmp_path, drop_in):
    most = EXPOSURE[drop_in]
    done = judged(tmp_path, drop_in, f"--threshold={most * 10:.0f}")
    row = next(line for line in (UNITS.parents[1] / "docs" / "install.md").read_text().splitlines()
               if line.startswith(f"| `{drop_in}` |" if drop_in else "| the unit as shipped |"))  # fmt: skip

    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-200:]
    assert row.split("|")[2].strip() == str(most)


def test_s35_each_drop_in_is_judged():
    drop_ins = {path.name for path in UNITS.glob("*.conf") if "[Service]" in path.read_text().splitlines()}

    assert drop_ins | {""} == set(EXPOSURE)


@needs_systemd
@pytest.mark.parametrize("drop_in", EXPLAINED)
def test_s35_what_is_left_open_has_its_reason_in_the_file(tmp_path, drop_in):
    rows = json.loads(judged(tmp_path, drop_in, "--json=short").stdout)
    text = SERVICE.read_text() + ((UNITS / drop_in).read_text() if drop_in else "")
    comments = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    counted = [row["name"].split("=/")[0].removesuffix("=") for row in rows if float(row["exposure"] or 0) > 0]

    assert len(counted) > 10
    assert [name for name in counted if name not in comments] == []


def test_s36_the_unit_lets_no_memory_be_written_out_and_nobody_else_read_what_jobs_write():
    lines = SERVICE.read_text().splitlines()

    assert {"LimitCORE=0", "UMask=0077"} <= set(lines)
