"""What a daemon of an older package starts by the former names of modules is still there after an upgrade."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("backup", "http_request", "restore_drill", "sql_statement")


def said(*words, given=""):
    done = subprocess.run([sys.executable, *words], input=given, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr.splitlines()[-1:]


@pytest.mark.parametrize(
    ("former", "name"),
    [("keeper", "process.keeper"), *((f"children.{each}", f"actions.programs.{each}") for each in PROGRAMS)],
)
def test_a_former_name_starts_the_same_program(former, name):
    assert said("-m", f"schedulerd.{former}") == said("-m", f"schedulerd.{name}")
    assert "No module named" not in said("-m", f"schedulerd.{former}")[2][0]


def test_a_function_is_called_by_the_former_path_of_the_program():
    order = json.dumps({"call": "os.path:basename", "args": ["/a/b"], "kwargs": {}, "path": []})

    code, _, errors = said(str(ROOT / "schedulerd" / "children" / "call.py"), given=order)
    assert (code, errors) == (0, [])
