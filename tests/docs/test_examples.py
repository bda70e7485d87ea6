"""Examples of the documentation: YAML loads, commands are valid, and the first job of the README runs."""

import itertools
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from schedulerd import __main__ as daemon_program
from schedulerd.cli import main as cli
from schedulerd.config.loader import load
from schedulerd.config.settings import TOP
from tests.support.markdown import PAGES, ROOT, code, inline_code, name_of
from tests.support.waiting import until

YAML = [(page, index, text) for page in PAGES for index, text in enumerate(code(page, "yaml"))]
PARSERS = {"schedulerctl": cli.make_parser(), "schedulerd": daemon_program.make_parser()}
CALENDAR = "[2026-12-25]\n"
README = ROOT / "README.md"
TREE_OF = runpy.run_path(str(ROOT / "packaging" / "reference.py"))["tree_of"]


def whole(text: str) -> dict:
    """Return an example as a configuration: jobs alone get the key `jobs`, and each job that one follows is added."""
    value = yaml.safe_load(text)
    value = value if set(value) <= set(TOP) else {"jobs": value}
    jobs = value.setdefault("jobs", {})
    for job in list(jobs.values()):
        after = job.get("after")
        named = [after.get("job"), *after.get("all", ()), *after.get("any", ())] if isinstance(after, dict) else []
        jobs.update({name: {"shell": "true"} for name in named if name and name not in jobs})
    return value


@pytest.mark.parametrize(("page", "index", "text"), YAML, ids=[f"{name_of(page)}-{index}" for page, index, _ in YAML])
def test_each_yaml_block_loads(tmp_path, monkeypatch, page, index, text):
    monkeypatch.setenv("MAIN_DB_URL", "postgresql:///main")
    value = whole(text)
    calendars = {name: str(tmp_path / f"{name}.yaml") for name in value.get("calendars", {})}
    for path in calendars.values():
        Path(path).write_text(CALENDAR)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"state_dir": "state", **value, **({"calendars": calendars} if calendars else {})}))
    config.chmod(0o600)

    loaded = load(str(config))

    assert set(loaded.jobs) == set(value["jobs"])


def commands(text: str) -> list[list[str]]:
    """Return the words of each command of ours in shell lines."""
    text = re.sub(r"\\\n\s*", " ", text)
    text = re.sub(r"(^|\s)# .*$", "", text, flags=re.MULTILINE)
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|;&()<>\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    found = []
    words: list[str] = []
    for word in [*lexer, ";"]:
        if not set(word) <= set("|;&()<>\n"):
            words.append(word)
            continue
        plain = list(itertools.dropwhile(re.compile(r"\w+=").match, words))  # without variables before it
        found += [plain] if plain and Path(plain[0]).name in PARSERS else []
        words = []
    return found


COMMANDS = [
    (page, words)
    for page in PAGES
    if page.name != "CHANGELOG.md"  # it may name commands that are gone
    for text in [
        *code(page, "sh"),
        *(each for each in inline_code(page) if each.startswith(tuple(f"{name} " for name in PARSERS)) and "[" not in each),
    ]
    for words in commands(text)
]


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=[f"{name_of(page)}: {' '.join(words)}" for page, words in COMMANDS]
)
def test_each_command_is_valid(page, words):
    parser = PARSERS[Path(words[0]).name]
    if tuple(words[1:]) in dict(TREE_OF(parser)):  # only named, such as `schedulerctl run`
        return

    try:
        parser.parse_args(words[1:])
    except SystemExit as end:  # --version
        if end.code:
            raise


def test_there_are_commands_and_examples_on_the_pages():
    assert len(YAML) > 10
    assert len(COMMANDS) > 40


def test_each_make_target_of_the_pages_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = [text for page in PAGES for text in [*code(page, "sh"), *inline_code(page)]]
    named = {name for text in lines for name in re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)}

    assert len(named) > 8
    assert named - targets == set()


@pytest.fixture
def first_job(tmp_path):
    """Run the daemon of the README's first job in a folder, and return the folder."""
    (example,) = code(README, "yaml")
    folder = tmp_path / "first"
    folder.mkdir(mode=0o755)
    (folder / "first.yaml").write_text(example)
    (folder / "first.yaml").chmod(0o600)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    lines = commands("\n".join(text for text in code(README, "sh") if "first.yaml" in text))
    check, run = ([sys.executable, "-m", "schedulerd", *words[1:]] for words in lines)
    subprocess.run(check, cwd=folder, env=env, check=True, capture_output=True)
    with (folder / "log").open("wb") as log, subprocess.Popen(run, cwd=folder, env=env, stderr=log) as process:
        try:
            until((folder / "first-state" / "schedulerd.sock").exists, "the socket", 60)
            until(lambda: "is ready" in (folder / "log").read_text(), "the daemon's readiness", 60)
            yield folder, env
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            until(lambda: not keeper_of(folder), "the end of the keepers")


def keeper_of(folder: Path) -> list[str]:
    """Return the command lines of processes that name the state directory."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(entry.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if f"{folder}/first-state/keeper/" in line]


@pytest.mark.daemon
def test_the_first_job_and_the_ten_commands_of_the_readme_run(first_job):
    folder, env = first_job
    (block,) = [text for text in code(README, "sh") if "SCHEDULERD_SOCKET" in text]
    script = block.replace("schedulerctl", f"{sys.executable} -m schedulerd.cli")

    assert len(commands(block)) == 10
    for line in script.splitlines():
        env["SCHEDULERD_SOCKET"] = "first-state/schedulerd.sock"
        done = subprocess.run(["sh", "-c", line], cwd=folder, env=env, capture_output=True, text=True, check=False)
        said = (line, done.stdout, done.stderr, (folder / "log").read_text())
        assert done.returncode in ((0, 1) if "health" in line else (0,)), said  # 1: a busy host is not healthy
        if "run hello" in line:
            assert "hello from hello" in done.stdout
