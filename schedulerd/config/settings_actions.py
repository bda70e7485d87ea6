"""The settings of the actions: what stands under the key of each."""

from __future__ import annotations

from collections.abc import Mapping

from .composites import ListOf, MapOf, OneOrMore, Option, Section, SectionOrText
from .fields import Anything, Boolean, CommandWord, Duration, Integer, Size, Text, TextOrSecret
from .settings_backups import BACKUP, RESTORE_DRILL
from .settings_health import HEALTH_CHECK

SQLITE = ("sqlite://",)
POSTGRESQL = ("postgresql://", "postgres://")
REDIS = ("redis://", "rediss://", "unix://")
BACKED_UP = (*SQLITE, *POSTGRESQL, *REDIS)
SOURCE_SCHEMES: Mapping[str, Mapping[str, tuple[str, ...]]] = {  # what may be named where
    "backup": {"source": BACKED_UP},
    "restore_drill": {"into": POSTGRESQL},
    "sql": {"dsn": (*SQLITE, *POSTGRESQL)},
    "health_check": {"postgresql": POSTGRESQL, "redis": REDIS},
}

ARGV = ListOf(
    CommandWord(),
    at_least=1,
    expected="a list of words such as [/usr/bin/find, /srv, -delete] (for a shell line use shell:)",
)
PYTHON = Section(
    {
        "call": Option(
            Text(r"[^\W\d][\w.]*:[^\W\d][\w.]*", "MODULE:FUNCTION"), "which function is called, as module:function",
            required=True,
        ),
        "args": Option(ListOf(Anything({})), "its arguments", ()),
        "kwargs": Option(MapOf(Anything({}), r"[^\W\d]\w*", "a name of an argument"), "its arguments by name", {}),
    }
)  # fmt: skip
HTTP = Section(
    {
        "url": Option(TextOrSecret(), "an http:// or https:// URL; may be a secret", required=True),
        "method": Option(Text(r"[A-Z]{1,20}", "a method such as GET or POST"), "the method", "GET"),
        "headers": Option(MapOf(TextOrSecret(), r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "a name of a header"), "headers", {}),
        "body": Option(TextOrSecret(), "what is sent"),
        "json": Option(Anything({}), "what is sent, as JSON"),
        "expect_status": Option(
            OneOrMore(Text(r"[1-5]([0-9]{2}|xx)", "a status such as 200 or 2xx")), "which answers are a success", ("2xx",)
        ),
        "expect_text": Option(Text(), "what the answer must contain"),
        "expect_json": Option(Anything({"type": "object"}), "what the answer must have: a mapping that is part of it"),
        "verify": Option(
            Anything({"type": ["boolean", "string"]}), "false: any certificate will do; or a file of authorities", True
        ),
        "follow_redirects": Option(Boolean(), "true: redirects are followed, to the same host only", False),
        "response_timeout": Option(Duration(), "how long connecting and answering may take", 30.0),
    }
)
SQL = Section(
    {
        "dsn": Option(TextOrSecret(), "the name of a source, or a sqlite:// or postgresql:// URL", required=True),
        "statement": Option(Text(r"[\s\S]*\S[\s\S]*", "an SQL statement"), "what is executed; :NAME is a parameter's value"),
        "file": Option(Text(), "a file with what is executed, read at each start"),
        "statement_timeout": Option(Duration(), "how long it may take; 0 is no bound", 0.0),
    }
)

CLEANUP = Section(
    {
        "older_than": Option(Duration(), "finished runs older than this go, with their output", 90 * 86400.0),
        "runs_per_job": Option(Integer(1, 10_000_000), "of each job only so many finished runs stay, the newest ones"),
        "keep_last_failure": Option(Boolean(), "each job's last failure stays, however old", True),
        "keep_last_success": Option(Boolean(), "each job's last success stays, however old", True),
        "outputs_older_than": Option(Duration(), "outputs older than this go, and their runs stay"),
        "outputs_size": Option(Size(), "all outputs together have at most this size: the oldest go, their runs stay"),
        "min_free": Option(Size(), "outputs go, oldest first, until so much is free on their disk"),
        "dry_run": Option(Boolean(), "true: only says what would go", False),
        "batch": Option(Integer(1, 100_000), "how many rows are deleted in one transaction", 500),
    }
)
ACTIONS: Mapping[str, Option] = {
    "command": Option(
        ARGV,
        "Runs a program without a shell. Each word is a text, or {param: NAME} for the value of a parameter.",
        example="[/usr/bin/rsync, -a, /srv/in/, /srv/out/]",
    ),
    "shell": Option(
        Text(r"[\s\S]*\S[\s\S]*", "a line for /bin/sh"),
        "Runs a line with /bin/sh. Values of parameters are in variables such as $SCHEDULERD_PARAM_NAME.",
        example='"df -h / | tail -1"',
    ),
    "python": Option(
        SectionOrText(PYTHON, "call"),
        "Calls a Python function in a process of its own: MODULE:FUNCTION, or a mapping.",
        example="shop.jobs:import_orders",
    ),
    "http": Option(
        SectionOrText(HTTP, "url"),
        "Makes one HTTP request and compares the response with what is expected: a URL, or a mapping.",
        example="{url: https://localhost/warm, expect_status: 200}",
    ),
    "sql": Option(
        SQL,
        "Executes SQL statements in one transaction, on a SQLite or PostgreSQL database.",
        example="{dsn: main_db, statement: REFRESH MATERIALIZED VIEW totals}",
    ),
    "health_check": Option(
        HEALTH_CHECK,
        "Probes databases, folders, addresses and the host in parallel. The last results are in `schedulerctl health`.",
        example="{postgresql: main_db, storage: [/srv/data]}",
    ),
    "backup": Option(
        BACKUP,
        "Makes and checks a backup of a database, of the history of schedulerd, or of a folder.",
        example="{source: history, keep: {daily: 7, weekly: 4}}",
    ),
    "restore_drill": Option(
        RESTORE_DRILL,
        "Restores the newest backup of a job to a scratch place and checks assertions against it.",
        example="{of: nightly_dump, into: main_db}",
    ),
    "analytics": Option(
        Section({"days": Option(Integer(1, 3660), "how many past days are computed (again)", 1)}),
        "Computes daily statistics of each job.",
        example="{}",
    ),
    "cleanup": Option(
        CLEANUP,
        "Deletes old runs, outputs and statistics.",
        example="{older_than: 90d}",
    ),
}
