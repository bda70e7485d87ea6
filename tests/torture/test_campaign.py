"""The short form of the campaign, and proof that its judge sees faults; the long form is for hand and night."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.mutants import MUTANTS

ROOT = Path(__file__).parents[2]


def torture(folder, *words):
    """Run the campaign as by hand; return its exit status and what it printed."""
    if shutil.which("gcc") is None and "CI" not in os.environ:
        pytest.skip("gcc is not installed (tests/install-servers)")
    command = [sys.executable, "-m", "tests.torture", *words, "--evidence", str(folder / "evidence")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, check=False)
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("who", ["kill+keeper+reload+clock", "postgresql+both-logs"])
def test_what_is_due_under_several_faults_is_started_once_and_told(tmp_path, who):
    status, said = torture(tmp_path, "--nemeses", who, "--rounds", "1", "--round", "7", "--rate", "30", "--seed", "1")

    assert status == 0, said


@pytest.mark.slow
def test_the_judge_sees_a_daemon_that_plans_from_now(tmp_path):
    status, said = torture(tmp_path, "mutants", "--nemeses", "plan from now")

    assert status == 0, said


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mutant_is_still_one(mutant):
    assert mutant.mutated() != (ROOT / "schedulerd" / mutant.module).read_text()
