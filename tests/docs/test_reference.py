"""The tables of settings, routes and commands in docs/ are those of the program."""

import re
import runpy

import pytest
import yaml

from schedulerd.api.routes import OPEN_ROUTES, ROUTES
from schedulerd.config.settings import API, TOP
from schedulerd.config.settings_actions import ACTIONS
from schedulerd.config.settings_jobs import JOB, POLICY
from tests.support.markdown import PAGES, ROOT, name_of

REFERENCE = runpy.run_path(str(ROOT / "packaging" / "reference.py"))
DOCS = [page for page in PAGES if page.parent.name == "docs"]
TEXT = "".join(page.read_text() for page in DOCS)


@pytest.mark.parametrize("page", DOCS, ids=name_of)
def test_each_generated_block_is_fresh(page):
    text = page.read_text()

    assert text.count("<!-- generated: ") == len(REFERENCE["MARKED"].findall(text))
    assert REFERENCE["filled"](text) == text, "run `make docs`"


def test_each_block_is_on_one_page():
    found = re.findall(r"<!-- generated: (.+?) -->", TEXT)

    assert sorted(found) == sorted(REFERENCE["blocks"]())


@pytest.mark.parametrize("table", [TOP, API, JOB, POLICY])
def test_each_setting_is_in_a_table(table):
    elsewhere = frozenset({"jobs", "defaults", "api", *ACTIONS})  # in tables of their own

    assert [path for path, _ in REFERENCE["rows"](table, without=elsewhere) if f"| `{path}` |" not in TEXT] == []


@pytest.mark.parametrize("action", ACTIONS)
def test_each_setting_of_an_action_is_in_a_table(action):
    rows = [path for path, _ in REFERENCE["rows"]({action: ACTIONS[action]})]
    names = [path.partition(".")[2] or path for path in rows]

    assert [name for name in names if f"| `{name}` |" not in TEXT] == []


def test_each_setting_has_a_type_a_text_and_a_version():
    every = list(REFERENCE["rows"](TOP))

    assert len(every) > 200
    assert [path for path, option in every if not (REFERENCE["type_of"](option.kind) and option.help and option.since)] == []


@pytest.mark.parametrize("table", [TOP, API, JOB])
def test_each_example_of_a_setting_is_valid(table):
    problems = []
    for path, option in REFERENCE["rows"](table):
        if option.example is not None:
            value = yaml.load(option.example, Loader=yaml.BaseLoader if is_text(option) else yaml.SafeLoader)
            option.kind.read(value, (path,), lambda where, text: problems.append((where, text)))

    assert problems == []


def is_text(option):
    return option.kind.type_name == "text"  # dates in it stay text, as the reader of the configuration has them


def test_each_route_is_in_the_table_with_a_text():
    page = (ROOT / "docs" / "api.md").read_text()
    paths = [route.path.removeprefix(REFERENCE["PREFIX"]) for route in ROUTES] + list(OPEN_ROUTES)

    assert [path for path in paths if f"| `{path}` |" not in page] == []
    assert not re.search(r"^\| (GET|POST) \|.*\|\s+\|$", page, re.MULTILINE)


def test_the_picture_is_that_of_the_session():
    picture = runpy.run_path(str(ROOT / "packaging" / "picture.py"))
    session = (ROOT / "docs" / "terminal.txt").read_text()

    assert picture["svg"](session) == (ROOT / "docs" / "terminal.svg").read_text(), "run `make docs`"
