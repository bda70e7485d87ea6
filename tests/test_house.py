"""The house stands as it was drawn: packages, clocks, settings, routes and commands."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from schedulerd.actions.registry import PREPARE
from schedulerd.api.routes import ROUTES
from schedulerd.config import settings, settings_jobs
from schedulerd.config.settings_actions import ACTIONS
from schedulerd.config.settings_triggers import TRIGGERS
from schedulerd.core.models import Role
from schedulerd.daemon import BUILTINS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "schedulerd"

# What each package may import, beside itself. Modules at the top may import everything, and nothing imports them.
MAY_IMPORT = {
    "core": "",
    "host": "core",
    "secrets": "core host",
    "triggers": "core",
    "backups": "core host secrets",
    "store": "core host secrets",
    "process": "core host secrets store",
    "config": "core host secrets triggers backups",
    "engine": "core host secrets process store",
    "actions": "core host secrets backups config process store",
    "service": "core host secrets triggers backups config process store engine actions",
    "api": "core host secrets backups config process service",
    "cli": "core host secrets triggers backups config store",
}
FORMER = {"keeper", "children"}  # names under which a daemon of an older package starts what has moved
OPTIONAL = {"psycopg", "redis", "icalendar", "dateutil", "psutil"}  # installed only where somebody needs them
NEEDS_OPTIONAL = ("store.postgres.", "backups.scratch")  # modules of our own that need one of these
# `schedulerctl` starts fast: these commands compute with parts of the daemon, and load them only when they are chosen.
LOADED_BY_COMMAND = {"cli/offline.py": {"cli.db", "cli.explain"}}
NOT_PURE = {"clock", "faults", "failures", "loop_steps"}  # modules of core that read a clock or log
PURE_BESIDE_CORE = (
    "triggers/*.py",
    "config/fields.py",
    "config/composites.py",
    "config/settings*.py",
    "config/params.py",
    "config/policy_reader.py",
    "config/icalendar.py",
    "backups/retention.py",
    "actions/anomalies.py",
    "service/timeline.py",
    "api/connections/admission.py",
    "api/connections/framing.py",
)
HANDS = {"threading", "socket", "sqlite3", "subprocess", "time", "asyncio", "aiohttp"}


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def every_source(test):
    return pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))(test)


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module_of(path) for path in sources()}


def imported(path: Path, within: ast.AST | None = None) -> Iterator[str]:
    """Yield the modules of our own that a file imports, wherever in it: also in functions, and for types alone."""
    package = path.relative_to(PACKAGE).parent.parts
    for node in ast.walk(within or ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join((*package[: len(package) - node.level + 1], *(node.module or "").split("."))).strip(".")
            for alias in node.names:
                name = f"{base}.{alias.name}".strip(".")
                yield name if name in MODULES else base


def imported_elsewhere(path: Path, within: ast.AST | None = None) -> Iterator[str]:
    """Yield the names that a file imports from the standard library and from other distributions."""
    for node in ast.walk(within or ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]


def package_of(module: str) -> str:
    top = module.partition(".")[0]
    return top if top in MAY_IMPORT else ""


@every_source
def test_imports_never_point_up(path):
    package = package_of(module_of(path))
    allowed = {package, *MAY_IMPORT.get(package, "").split()}
    modules = set(imported(path)) - {""}  # the package itself: its version

    assert not package or {module for module in modules if package_of(module) not in allowed} == set()


@every_source
def test_imports_of_our_own_are_relative(path):
    assert "schedulerd" not in set(imported_elsewhere(path))


@every_source
def test_a_function_imports_only_what_may_not_be_installed(path):
    functions = [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]

    assert {name for node in functions for name in imported_elsewhere(path, node)} <= OPTIONAL
    ours = {name for node in functions for name in imported(path, node) if not name.startswith(NEEDS_OPTIONAL)}
    assert ours == LOADED_BY_COMMAND.get(str(path.relative_to(PACKAGE)), set())


def test_no_module_imports_itself_over_others():
    left = {module_of(path): set(imported(path)) & MODULES - {module_of(path)} for path in sources()}
    while free := {module for module, needed in left.items() if not needed & left.keys()}:
        left = {module: needed for module, needed in left.items() if module not in free}

    assert left == {}


def test_a_newcomer_sees_the_packages_and_few_files():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == MAY_IMPORT.keys() | FORMER
    assert len(list(PACKAGE.glob("*.py"))) <= 7


def test_imports_of_all_kinds_are_seen():
    assert "core.trigger" in set(imported(PACKAGE / "core" / "models.py"))
    assert "store.postgres.store" in set(imported(PACKAGE / "store" / "factory.py"))  # in a function
    assert "process.keeper.procfs" in set(imported(PACKAGE / "process" / "keeper" / "children.py"))


CLOCKS = re.compile(r"\b(datetime\.(now|utcnow|today)|date\.today|time\.(time|monotonic|time_ns|perf_counter|sleep))\(")


@every_source
def test_the_clock_is_read_in_clock_py_only(path):
    if path.name != "clock.py":
        assert not CLOCKS.search(path.read_text())
    else:
        assert CLOCKS.search(path.read_text())


def pure() -> list[Path]:
    core = [path for path in (PACKAGE / "core").glob("*.py") if path.stem not in NOT_PURE]
    return sorted(core) + [path for pattern in PURE_BESIDE_CORE for path in sorted(PACKAGE.glob(pattern))]


@pytest.mark.parametrize("path", pure(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_pure_modules_have_no_hands(path):
    assert not set(imported_elsewhere(path)) & HANDS


def test_schedule_is_imported_by_the_timetable_only():
    users = [path.name for path in sources() if re.search(r"^(import|from) schedule\b", path.read_text(), re.MULTILINE)]

    assert users == ["planned_job.py", "timetable.py"]


def test_every_action_of_the_configuration_is_implemented_and_the_other_way_round():
    assert set(ACTIONS) == set(PREPARE) | set(BUILTINS)


def test_every_route_needs_a_role():
    assert all(isinstance(route.role, Role) for route in ROUTES)
    assert all(route.role >= Role.OPERATOR for route in ROUTES if route.method != "GET")


@pytest.mark.parametrize("table", [settings.TOP, settings.API, settings_jobs.POLICY, TRIGGERS, ACTIONS])
def test_every_option_is_in_the_documentation_and_in_the_example_or_its_prose(table):
    text = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    text = re.sub(r"<!-- generated.*?<!-- end -->", "", text, flags=re.DOTALL) + (ROOT / "config.example.yaml").read_text()

    assert [name for name in table if not re.search(rf"\b{name}\b", text)] == []


# Names that others use: logging, PyYAML and aiohttp; the tests compare schema.sql with the migrations.
USED_ELSEWHERE = {
    "formatException", "descend_resolver", "ascend_resolver", "handle_error", "writelines", "load_schema",
}  # fmt: skip


def defined(tree: ast.Module) -> Iterator[str]:
    """Yield the functions, classes, constants and annotated fields that a module defines."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_every_name_that_is_defined_is_used():
    texts = [path.read_text() for path in sources()]
    code = "\n".join(re.sub(r'"""(?:.|\n)*?"""', "", text) for text in texts)
    uses = Counter(re.findall(r"\w+", code))
    names = {name for text in texts for name in defined(ast.parse(text)) if not name.startswith("__")}

    assert {name for name in names if uses[name] == 1} == USED_ELSEWHERE
