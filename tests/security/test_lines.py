"""S1 to S40: each line has its tests, or says what it waits for; the README here is the table."""

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = HERE.parent
LINES = [f"S{number}" for number in range(1, 41)]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (HERE / "README.md").read_text().splitlines()
    if re.match(r"\| (S\d+|gates) \|", line)
]
NAMED = [(line, name) for line, _, tests, _ in ROWS for name in re.findall(r"`([^`]+)`", tests)]
FILES = sorted(path for path in HERE.glob("test_*.py") if path.name != "test_lines.py")


def path_of(name):
    file = name.partition("::")[0]
    return HERE / file if "/" not in file and (HERE / file).exists() else TESTS / file


def functions_in(path):
    return [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


def lines_of(path):
    """Return the lines that a file names: in its first words, and in the names of its tests."""
    words = re.findall(r"\bS\d+\b", ast.get_docstring(ast.parse(path.read_text())) or "")
    tests = (re.match(r"test((_s\d+)*)_", name) for name in functions_in(path))
    return {*words, *(line for found in tests if found for line in found[1].upper().split("_")[1:])}


def test_each_line_stands_once_in_the_table():
    assert [line for line, *_ in ROWS] == [*LINES, "gates"]


def test_each_line_has_a_test_or_says_what_it_waits_for():
    assert [line for line, _, tests, waits in ROWS if not tests and not waits] == []


@pytest.mark.parametrize(("line", "name"), NAMED)
def test_what_the_table_names_is_there(line, name):
    _, _, test = name.partition("::")
    tests = [each for each in functions_in(path_of(name)) if each.startswith("test_")]

    assert tests
    assert not test or test in tests


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_names_its_lines_and_is_in_the_table_with_them(path):
    lines = lines_of(path)
    in_table = {line for line, name in NAMED if path_of(name) == path and "::" not in name}
    single = {line for line, name in NAMED if path_of(name) == path and "::" in name}

    assert lines or path.name == "test_gates.py"
    assert lines <= set(LINES)
    assert lines <= in_table | single
    assert in_table - {"gates"} <= lines
