"""Each broad catch was looked at: what it hides, who is told, and whether the thread lives.

A new one is entered in a table below with its reason. In its place may stand: a narrower class; `parts.Part` or
`keeper.steps.Steps`, which log boundedly and tell while it lasts; or a word to whoever must know.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "schedulerd"
BROAD = {"Exception", "BaseException", "everything"}
TELLING = {"exception", "critical", "error", "warning", "handleError"}

# except Exception, except BaseException, bare except, suppress(Exception): file -> how many, and who is told
CATCHES = {
    "api/app.py": (1, "the edge of the API: 500 to the caller, the traceback to the log"),
    "backups/catalogue.py": (1, "takes back a half-made name, and raises again"),
    "actions/health_check.py": (1, "a driver's error becomes the probe's, without what is secret"),
    "actions/probes/postgresql.py": (1, "gives the connection up, and raises again"),
    "actions/probes/runner.py": (1, "an error is the probe's answer"),
    "actions/probes/redis_protocol.py": (1, "gives the connection up, and raises again"),
    "engine/cancellation.py": (1, "the error is for the future of who asked"),
    "actions/programs/call.py": (1, "the error of the user's function is the result of the run"),
    "actions/programs/http_request.py": (1, "the error is the result of the run, without what is secret"),
    "actions/programs/sql_statement.py": (1, "the error is the result of the run, without what is secret"),
    "engine/completion.py": (1, "the attempt that follows: log and the run's row, and the end is written"),
    "engine/executor.py": (3, "start, result and function of a run: its row, and the log when it is no error of ours"),
    "config/icalendar.py": (2, "a library's error becomes a mistake of the file, with its line"),
    "process/keeper/fork.py": (1, "in the child, before exec: the parent is told, and the child ends"),
    "process/keeper/steps.py": (1, "a step of the keeper: the file errors and health, boundedly"),
    "host/locks.py": (1, "closes what it has opened, and raises again"),
    "logs.py": (2, "a message that cannot be formatted is told in its place"),
    "engine/planner.py": (1, "what is due is handed over again: log and health, at a limited rate"),
    "engine/timetable.py": (1, "the times of a job are computed again: log once, and health"),
    "engine/dispatch.py": (1, "a launch that fails: the log and the run's row"),
    "engine/thread_pool.py": (1, "a task of the pool: the log; its thread lives"),
    "service/configuration.py": (1, "a reload that fails: log, STATUS and health"),
    "engine/scheduler.py": (2, "a decision: the log, tried again; or the slots are released, and raises again"),
    "service/backup_clearing.py": (1, "one folder of backups: the log, and the others are cleared"),
    "store/backend.py": (1, "a change that the database refuses fails alone: its future and the log"),
    "store/worker_thread.py": (1, "the error is for the future of who asked"),
    "store/outage.py": (1, "waits, and raises again"),
    "store/postgres/apply.py": (2, "gives the connection up, and raises again"),
    "store/sqlite/open.py": (1, "closes the file, and raises again"),
    "store/writer.py": (1, "the writer's loop: the log and the futures of the changes"),
    "process/keeper_restarts.py": (1, "no keeper to be had: log and health, tried again"),
}

# suppress(OSError): file -> why nobody need be told
SUPPRESSED = {
    "host/unix_sockets.py": "who is asked is gone",
    "backups/tls_tunnel.py": "the program at this end tells its own trouble; a connection that ends",
    "actions/probes/network.py": "a connection that is given up",
    "actions/probes/postgresql.py": "a connection that is given up",
    "actions/probes/redis_protocol.py": "a connection that is given up",
    "host/descriptors.py": "a figure that the kernel does not tell",
    "host/files.py": "a temporary file that is given up",
    "process/keeper/adoption.py": "a shortage: checked again",
    "process/keeper/daemon_connection.py": "a daemon that is gone",
    "process/keeper/folder.py": "the lock file has to do; a socket that is gone",
    "process/keeper/run_cgroups.py": "a kernel without a controller's file; figures that are not there; killed one by one",
    "process/keeper/journal.py": "what is not written is kept, and the file tells why; the rest is told again",
    "process/keeper/reserved_file.py": "retried with the next sync",
    "process/keeper/leftovers.py": "a process that is gone has no name",
    "config/account_checks.py": "an account that cannot be looked up now is told when a run starts",
    "config/last_good.py": "a copy that is not there",
    "process/keeper_connection.py": "a connection that ends: its reader notices",
    "host/locks.py": "a folder that is not there",
    "process/output.py": "what is only there sometimes; a figure for an error that is told",
    "process/spec.py": "the descriptor that lists the others",
    "api/refusal.py": "a caller who is gone",
    "process/result_file.py": "a file that goes with its output later",
    "api/listeners.py": "a socket that is gone",
    "store/postgres/connection.py": "a connection that is given up",
    "host/cgroups.py": "a controller that is not to be had: told as a limit that is not kept",
    "process/keeper_starter.py": "a keeper not waited for; a file that grows on for a while",
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def names(node: ast.expr | None) -> set[str]:
    """Return the classes that a handler names; a bare one takes everything."""
    if node is None:
        return {"everything"}
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    return {
        part.attr if isinstance(part, ast.Attribute) else part.id
        for part in parts
        if hasattr(part, "attr") or hasattr(part, "id")
    }


def handlers(tree: ast.AST) -> list[ast.ExceptHandler]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and names(node.type) & BROAD]


def suppressions(tree: ast.AST) -> list[set[str]]:
    """Return the classes of each `suppress(…)`, also of `contextlib.suppress(…)`."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and names(node.func) == {"suppress"}]
    return [set().union(*(names(each) for each in call.args)) for call in calls]


def count(path: Path) -> tuple[int, int]:
    """Return how many broad catches a file has, and how often it passes over any OSError."""
    tree = ast.parse(path.read_text())
    found = suppressions(tree)
    broad = len(handlers(tree)) + sum(bool(each & BROAD) for each in found)
    return broad, sum("OSError" in each and not each & BROAD for each in found)


def is_silent(handler: ast.ExceptHandler) -> bool:
    """Return whether a handler neither raises, nor logs, nor does anything with the error."""
    inside = [node for statement in handler.body for node in ast.walk(statement)]
    raises = any(isinstance(node, ast.Raise) for node in inside)
    logs = any(isinstance(node, ast.Attribute) and node.attr in TELLING for node in inside)
    uses = any(isinstance(node, ast.Name) and node.id == handler.name for node in inside)
    return not (raises or logs or uses)


def test_every_broad_catch_is_in_the_table():
    found = {name_of(path): broad for path in sources() if (broad := count(path)[0])}

    assert found == {name: number for name, (number, _) in CATCHES.items()}


def test_every_file_that_passes_over_any_oserror_is_in_the_table():
    assert {name_of(path) for path in sources() if count(path)[1]} == set(SUPPRESSED)


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_no_broad_catch_says_nothing(path):
    tree = ast.parse(path.read_text())

    assert [handler.lineno for handler in handlers(tree) if is_silent(handler)] == []
    assert [found for found in suppressions(tree) if found & BROAD] == []


@pytest.mark.parametrize(
    "text",
    [
        "try: f()\nexcept: pass",
        "try: f()\nexcept (OSError, Exception) as error: g()",
        "try: f()\nexcept BaseException: g(1)",
    ],
)
def test_what_says_nothing_is_seen(text):
    (handler,) = handlers(ast.parse(text))

    assert is_silent(handler)


def test_what_is_suppressed_is_seen():
    assert suppressions(ast.parse("with contextlib.suppress(Exception), suppress(OSError, KeyError): f()")) == [
        {"Exception"},
        {"OSError", "KeyError"},
    ]
