"""Man pages and completions are made of what the program says, and are accepted by what reads them."""

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from schedulerd import ctl, options

PAGES = runpy.run_path(str(Path(__file__).parents[2] / "packaging" / "pages.py"))
TEXTS = PAGES["pages"]()


def test_each_command_and_setting_has_its_place():
    commands = PAGES["commands_of"](ctl.make_parser())
    escaped = PAGES["escaped"]

    assert commands
    assert [name for name in commands if f"\\fB{escaped(name)}\\fR" not in TEXTS["schedulerctl.1"]] == []
    settings = (*options.TOP, *options.API, *options.JOB)
    assert [name for name in settings if f"\\fB{escaped(name)}\\fR" not in TEXTS["schedulerd.yaml.5"]] == []
    for name in ("schedulerctl", "_schedulerctl", "schedulerctl.fish"):
        assert [command for command in commands if command not in TEXTS[name]] == []
    assert not [name for name, text in TEXTS.items() if "@" in text and name.endswith((".1", ".5", ".8")) and "@\n" in text]


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
@pytest.mark.parametrize("name", ["schedulerd.8", "schedulerctl.1", "schedulerd.yaml.5"])
def test_a_man_page_has_no_mistakes(name):
    done = subprocess.run(
        ["groff", "-Kutf8", "-man", "-Tutf8", "-ww", "-z"], input=TEXTS[name].encode(), capture_output=True, check=True
    )

    assert done.stderr == b""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["schedulerctl", "hist"], ["history"]),
        (["schedulerctl", "history", "--lim"], ["--limit"]),
        (["schedulerctl", "history", "night"], ["nightly"]),
        (["schedulerctl", "history", "--limit", ""], []),
        (["schedulerctl", "--js"], ["--json"]),
    ],
)
def test_bash_completes_commands_options_and_jobs(tmp_path, words, found):
    (tmp_path / "completion").write_text(TEXTS["schedulerctl"])
    listing = tmp_path / "schedulerctl"
    listing.write_text("#!/bin/sh\nprintf 'JOB STATE\\nnightly active\\nother active\\n'\n")
    listing.chmod(0o755)
    script = (
        ". ./completion; PATH=$PWD:$PATH;"
        f"COMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1}; _schedulerctl; echo ${{COMPREPLY[*]}}"
    )
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stdout.split() == found


def test_defaults_stand_there_as_people_write_them():
    text = TEXTS["schedulerd.yaml.5"]

    assert "older_than\\fR (duration; default: 90d)" in text
    assert "min_free\\fR (size; default: 100M)" in text
    assert "shutdown_grace\\fR (duration; default: 30s)" in text
