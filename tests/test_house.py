"""The house stands as it was drawn: floors, clocks, options, routes and commands."""

import ast
import re
from pathlib import Path

import pytest

from schedulerd import api, options
from schedulerd.action_options import ACTIONS
from schedulerd.actions import PREPARE
from schedulerd.daemon import BUILTINS
from schedulerd.model import Role
from schedulerd.trigger_options import TRIGGERS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "schedulerd"

FLOORS = (
    {"errors", "escapes", "occurrences", "model", "clock", "durations", "figures", "zones", "faults", "failures"}
    | {"descriptors"},
    {"triggers", "spans", "windows", "icalendars", "policy", "admission", "retrying", "jobpolicy", "simulation", "retention"}
    | {"schema", "kinds", "params", "patterns", "keeping", "trends", "masking", "secretforms", "secretindex"}
    | {"dberrors", "proxies"}
    | {"options", "action_options", "trigger_options", "backup_options", "health_options"},
    {
        "yamlfile",
        "config",
        "jobconfig",
        "secrets",
        "results",
        "files",
        "trust",
        "mending",
        "folders",
        "rights",
        "children",
        "store",
        "keeper",
        "link",
        "process",
    }
    | {
        "accounts",
        "addresses",
        "config_files",
        "last_good",
        "backups",
        "envfiles",
        "keepsakes",
        "locks",
        "owner",
        "output",
        "systemd",
        "logs",
        "outlet",
        "parts",
        "privacy",
        "calendars",
        "load",
        "subtree",
        "summoning",
        "summons",
        "supervisor",
    },
    {"actions", "builtin"},
    {"planner", "executor", "board", "entries", "chains", "pauses", "waiters", "asking", "scheduler", "roster", "recovery"}
    | {"preparing", "seating", "hindrances", "endings", "ends", "cancelling", "entering", "lookup", "loop", "pool"},
    {"views", "forecast", "outlook", "reading", "runs", "shelf", "config_state", "service"},
    {
        "auth",
        "tokens",
        "tokenfile",
        "tally",
        "connections",
        "parsing",
        "answers",
        "api",
        "runs_api",
        "backups_api",
        "following",
        "server",
        "statedir",
    }
    | {"callers", "crowd", "doorway", "framing", "metering", "turns", "protocol", "upkeep", "refusal", "reloading"}
    | {"client", "explain", "tables", "terminal", "watching", "ctl_runs", "ctl_builtin", "ctl_db", "ctl"},
    {"daemon", "__main__"},
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PURE = (
    *(
        "triggers",
        "spans",
        "windows",
        "icalendars",
        "simulation",
        "policy",
        "admission",
        "retrying",
        "jobpolicy",
        "schema",
        "options",
    ),
    *("kinds", "params", "patterns", "action_options", "trigger_options", "backup_options", "health_options", "occurrences"),
    *("crowd", "framing", "proxies", "retention", "keeping", "trends"),
    *("figures", "durations", "model", "errors", "escapes", "zones", "failures"),
)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms that a file imports from, wherever in it the import stands."""
    found = set()
    depth = len(path.relative_to(PACKAGE).parts) - 1
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth + 1:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        assert not [name for name in names if name.split(".")[0] == "schedulerd"], f"{path}: imports of our own are relative"
    return found - {"__version__"}


def test_every_room_is_on_a_floor():
    assert {room_of(path) for path in sources()} == set(FLOOR_OF)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_never_point_up(path):
    upward = {room for room in imported_rooms(path) if FLOOR_OF[room] > FLOOR_OF[room_of(path)]}

    assert not upward


def test_imports_that_would_point_up_elsewhere_are_seen():
    assert {"service", "parsing"} <= {
        room for room in imported_rooms(PACKAGE / "api.py") if FLOOR_OF[room] > FLOOR_OF["store"]
    }
    assert "model" in imported_rooms(PACKAGE / "store" / "sqlite.py")


CLOCKS = re.compile(r"\b(datetime\.(now|utcnow|today)|date\.today|time\.(time|monotonic|time_ns|perf_counter|sleep))\(")


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_clock_is_read_in_clock_py_only(path):
    if path.name != "clock.py":
        assert not CLOCKS.search(path.read_text())
    else:
        assert CLOCKS.search(path.read_text())


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_import_no_hands(room):
    paths = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else sorted((PACKAGE / room).glob("*.py"))
    for path in paths:
        names = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        }
        assert not names & {"threading", "socket", "sqlite3", "subprocess", "time", "asyncio", "aiohttp"}


def test_schedule_is_imported_by_the_planner_only():
    users = [path.name for path in sources() if re.search(r"^(import|from) schedule\b", path.read_text(), re.M)]

    assert users == ["planner.py"]


def test_every_action_of_the_configuration_is_implemented_and_the_other_way_round():
    assert set(ACTIONS) == set(PREPARE) | set(BUILTINS)


def test_every_route_needs_a_role():
    assert all(isinstance(route.role, Role) for route in api.ROUTES)
    assert all(route.role >= Role.OPERATOR for route in api.ROUTES if route.method != "GET")


@pytest.mark.parametrize("table", [options.TOP, options.API, options.POLICY, TRIGGERS, ACTIONS])
def test_every_option_is_in_the_readme_or_the_example(table):
    text = (ROOT / "README.md").read_text() + (ROOT / "config.example.yaml").read_text()

    assert [name for name in table if not re.search(rf"\b{name}\b", text)] == []
