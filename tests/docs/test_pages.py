"""Man pages and completions are made of what the program says, and are accepted by what reads them."""

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from schedulerd.cli import main
from schedulerd.cli.output import REFUSED
from schedulerd.cli.runs import DETACHED, NOT_ENDED, TIMED_OUT
from schedulerd.config import settings as options

PAGES = runpy.run_path(str(Path(__file__).parents[2] / "packaging" / "pages.py"))
TEXTS = PAGES["pages"]()


def test_each_command_and_setting_has_its_place():
    commands = [" ".join(path) for path, _ in PAGES["tree_of"](main.make_parser()) if path]
    escaped = PAGES["escaped"]

    assert {"list", "db copy", "backups verify"} <= set(commands)
    assert [name for name in commands if f"\\fB{escaped(name)}\\fR" not in TEXTS["schedulerctl.1"]] == []
    settings = (*options.TOP, *options.API, *options.JOB)
    assert [name for name in settings if f"\\fB{escaped(name)}\\fR" not in TEXTS["schedulerd.yaml.5"]] == []
    for name in ("schedulerctl", "_schedulerctl", "schedulerctl.fish"):
        words = " ".join(commands).split()
        assert [word for word in words if word not in TEXTS[name]] == []
    assert not [name for name, text in TEXTS.items() if "@" in text and name.endswith((".1", ".5", ".8")) and "@\n" in text]


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
@pytest.mark.parametrize("name", ["schedulerd.8", "schedulerctl.1", "schedulerd.yaml.5"])
def test_a_man_page_has_no_mistakes(name):
    done = subprocess.run(
        ["groff", "-Kutf8", "-man", "-Tutf8", "-ww", "-z"], input=TEXTS[name].encode(), capture_output=True, check=True
    )

    assert done.stderr == b""


def test_what_may_be_left_out_is_in_brackets_and_each_exit_status_is_told():
    assert "\\fBwhy\\fR \\fIJOB\\fR [\\fITIME\\fR]\n" in TEXTS["schedulerctl.1"]
    statuses = (REFUSED, main.UNREACHABLE, NOT_ENDED, TIMED_OUT, DETACHED)
    assert [status for status in statuses if f".TP\n.B {status}\n" not in TEXTS["schedulerctl.1"]] == []


LINES = [
    ("schedulerctl hist", ["history"]),
    ("schedulerctl history --lim", ["--limit"]),
    ("schedulerctl history night", ["nightly"]),
    ("schedulerctl history --limit ''", []),
    ("schedulerctl --js", ["--json"]),
    ("schedulerctl db r", ["release"]),
    ("schedulerctl --socket list db mig", ["migrate"]),
    ("schedulerctl db status --c", ["--config"]),
    ("schedulerctl backups accept --r", ["--reason"]),
    ("schedulerctl backups show --", ["--json"]),
    ("schedulerctl backups drill o", ["other"]),
    ("schedulerctl cancel --wait --r", ["--reason"]),
    ("schedulerctl explain --gap ''", ["run", "skip"]),
]


@pytest.fixture
def listing(tmp_path):
    """Make a `schedulerctl` that knows two jobs, and return the folder that it is in."""
    program = tmp_path / "schedulerctl"
    program.write_text("#!/bin/sh\nprintf 'JOB STATE\\nnightly active\\nother active\\n'\n")
    program.chmod(0o755)
    return tmp_path


def completed(folder, name, *command):
    (folder / "completion").write_text(TEXTS[name])
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(("line", "found"), LINES)
def test_bash_completes_commands_options_and_jobs(listing, line, found):
    last = "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))"
    script = f". ./completion; COMP_WORDS=({line}); {last}; _schedulerctl; echo ${{COMPREPLY[*]}}"

    assert sorted(completed(listing, "schedulerctl", "bash", "-c", script).split()) == found


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
@pytest.mark.parametrize(("line", "found"), LINES)
def test_fish_completes_commands_options_and_jobs(listing, line, found):
    typed = line.removesuffix("''")
    script = f"source ./completion; complete -C '{typed}'"
    lines = completed(listing, "schedulerctl.fish", "fish", "-c", script).splitlines()

    assert sorted(each.partition("\t")[0] for each in lines) == found


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_takes_its_completion_which_has_the_verbs_of_verbs(listing):
    completed(listing, "_schedulerctl", "zsh", "-f", "-n", "completion")

    assert "db) _schedulerctl_db ;;" in TEXTS["_schedulerctl"]
    assert "'--gap[what becomes of a time that daylight saving skips]:run|skip:(run skip)'" in TEXTS["_schedulerctl"]


def test_defaults_stand_there_as_people_write_them():
    text = TEXTS["schedulerd.yaml.5"]

    assert "older_than\\fR (duration; default: 90d)" in text
    assert "min_free\\fR (size; default: 100M)" in text
    assert "shutdown_grace\\fR (duration; default: 30s)" in text
