"""The check of what a run of the tests leaves behind finds it."""

import subprocess
import sys

import pytest

from tests.support import leftovers
from tests.support.waiting import until

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(leftovers, "SECONDS_TO_END", 0.0)


@pytest.mark.parametrize("sign", ["environment", "folder", "argument"])
def test_a_process_is_found_by_its_environment_its_folder_and_its_arguments(impatient, tmp_path, sign):
    env = {leftovers.VARIABLE: "another-run"} if sign == "environment" else {}
    words = [f"{tmp_path}/state"] if sign == "argument" else []
    with subprocess.Popen([*SLEEP, *words], env=env, cwd=tmp_path if sign == "folder" else "/") as process:
        try:
            (found,) = until(lambda: leftovers.leftovers("another-run", tmp_path), "the process")
        finally:
            process.kill()

    assert found.startswith(f"process {process.pid} in ")
    assert leftovers.leftovers("another-run", tmp_path) == []
