"""The static gates: calls that have led to holes stand only where somebody has looked at them, and says why they may."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    path.relative_to(ROOT)
    for folder in ("schedulerd", "packaging", "contrib")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.suffix not in (".pyc", ".sql", ".json")
]
GATE = re.compile(
    r"shell=True|preexec_fn|yaml\.(?:unsafe_|full_)?load\(|os\.fork|add_static|capture_output|\.communicate\("
    r"|(?<![\w.])(?:eval|exec)\(|os\.(?:system|popen)\(|\bmarshal\.|\bpickle\b|mktemp\(|_create_unverified_context"
    r"|\bch(?:own|mod) -R"
)
REVIEWED = {
    (
        "schedulerd/process/keeper/fork.py",
        "os.fork",
    ): "the one place that makes children: it has no threads, and execs at once",
    ("schedulerd/backups/redis.py", "capture_output"): "of redis-cli PING, which says one word",
}


def found_in(path):
    try:
        text = (ROOT / path).read_text()
    except UnicodeDecodeError:
        return set()
    return {(str(path), found[0]) for found in GATE.finditer(text)}


def test_dangerous_calls_stand_only_where_they_were_reviewed():
    found = set().union(*map(found_in, SOURCES))

    assert found == REVIEWED.keys()


@pytest.mark.parametrize("line", ["subprocess.run(x, shell=True)", "yaml.load(x)", "yaml.unsafe_load(x)", "pickle.loads(x)"])
def test_the_gate_shuts(line):
    assert GATE.search(line)


def test_the_linter_looks_for_the_others():
    selected = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]

    assert {"S", "ASYNC", "PL"} <= set(selected["select"])
    assert not {"S", "ASYNC", "PL", "PLW", "PLW1509"} & set(selected["ignore"])
    assert not [
        path for path, rules in selected["per-file-ignores"].items() if path.startswith("schedulerd") and "S" in rules
    ]
