"""The short form of the campaign, and what the judge sees in books that are made up."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def torture(folder, *words):
    """Run the campaign as by hand; return its exit status and what it printed."""
    command = [sys.executable, "-m", "tests.torture", *words, "--evidence", str(folder / "evidence")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, check=False)
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("who", ["kill+keeper", "postgresql", "reload+clock"])
def test_what_is_due_under_faults_is_started_once_and_told(tmp_path, who):
    status, said = torture(tmp_path, "--nemeses", who, "--rounds", "1", "--round", "6", "--rate", "30", "--seed", "1")

    assert status == 0, said
