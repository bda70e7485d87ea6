"""The settings of the actions: what is valid under the key of each, except for backups and health checks."""

from __future__ import annotations

from collections.abc import Mapping

from .composites import ListOf, MapOf, OneOrMore, Option, Section, SectionOrText
from .fields import Anything, Boolean, CommandWord, Duration, Integer, Size, Text, TextOrSecret
from .settings_backups import BACKUP, RESTORE_DRILL
from .settings_health import HEALTH_CHECK

SQLITE = ("sqlite://",)
POSTGRESQL = ("postgresql://", "postgres://")
REDIS = ("redis://", "rediss://", "unix://")
BACKUP_SCHEMES = (*SQLITE, *POSTGRESQL, *REDIS)
SOURCE_SCHEMES: Mapping[str, Mapping[str, tuple[str, ...]]] = {  # action, setting, URL schemes that it accepts
    "backup": {"source": BACKUP_SCHEMES},
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
            Text(r"[^\W\d][\w.]*:[^\W\d][\w.]*", "MODULE:FUNCTION"), "The function to call, as MODULE:FUNCTION.",
            required=True, example="shop.jobs:import_orders",
        ),
        "args": Option(ListOf(Anything({})), "The positional arguments of the function.", (), example="[2000, 2100]"),
        "kwargs": Option(
            MapOf(Anything({}), r"[^\W\d]\w*", "a name of an argument"), "The keyword arguments of the function.", {},
            example="{limit: 100}",
        ),
    }
)  # fmt: skip
HTTP = Section(
    {
        "url": Option(
            TextOrSecret(), "The http:// or https:// URL of the request. It may be a secret.", required=True,
            example="https://localhost/warm",
        ),
        "method": Option(Text(r"[A-Z]{1,20}", "a method such as GET or POST"), "The request method.", "GET", example="POST"),
        "headers": Option(
            MapOf(TextOrSecret(), r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "a name of a header"),
            "The request headers. A value may be a secret.",
            {},
            example="{X-Key: {file: /etc/schedulerd/warm.key}}",
        ),
        "body": Option(TextOrSecret(), "The request body, as text. It may be a secret.", example='"refresh=1"'),
        "json": Option(Anything({}), "The request body, as a value that is sent as JSON.", example="{refresh: true}"),
        "expect_status": Option(
            OneOrMore(Text(r"[1-5]([0-9]{2}|xx)", "a status such as 200 or 2xx")),
            "The status codes of a successful response.",
            ("2xx",),
            example="[200, 204]",
        ),
        "expect_text": Option(Text(), "A text that the response body must contain.", example="ok"),
        "expect_json": Option(
            Anything({"type": "object"}, "mapping"), "Members that the JSON object of the response must have.",
            example="{status: ok}",
        ),
        "verify": Option(
            Anything({"type": ["boolean", "string"]}, "boolean or text"),
            "The file of certificate authorities that are trusted. true: those of the system. false: the certificate is not "
            "verified.",
            True,
            example="/etc/ssl/internal-ca.pem",
        ),
        "follow_redirects": Option(
            Boolean(), "true: redirects to the same host are followed.", False, example="true"
        ),
        "response_timeout": Option(
            Duration(), "The longest time for the connection and the response.", 30.0, example="5s"
        ),
    }
)  # fmt: skip
SQL = Section(
    {
        "dsn": Option(
            TextOrSecret(), "The database: the name of a source, or a sqlite:// or postgresql:// URL. It may be a secret.",
            required=True, example="main_db",
        ),
        "statement": Option(
            Text(r"[\s\S]*\S[\s\S]*", "an SQL statement"),
            "The SQL statements to execute. :NAME is the value of a parameter.",
            example='"DELETE FROM sessions WHERE expires_at < now()"',
        ),
        "file": Option(
            Text(), "A file with the SQL statements to execute. It is read before each run.", example="/srv/shop/nightly.sql"
        ),
        "statement_timeout": Option(
            Duration(), "The longest time for all statements. 0 sets no limit.", 0.0, example="10m"
        ),
    }
)  # fmt: skip
ANALYTICS = Section(
    {"days": Option(Integer(1, 3660), "The number of past days of which statistics are computed.", 1, example="7")}
)
CLEANUP = Section(
    {
        "older_than": Option(
            Duration(), "Runs that ended longer ago than this are deleted, with their outputs.", 90 * 86400.0, example="365d"
        ),
        "runs_per_job": Option(
            Integer(1, 10_000_000), "The largest number of ended runs of each job. Older ones are deleted.", example="10000"
        ),
        "keep_last_failure": Option(
            Boolean(), "true: the last failed run of each job is never deleted.", True, example="false"
        ),
        "keep_last_success": Option(
            Boolean(), "true: the last successful run of each job is never deleted.", True, example="false"
        ),
        "outputs_older_than": Option(
            Duration(), "Outputs of runs that ended longer ago than this are deleted. The runs are kept.", example="30d"
        ),
        "outputs_size": Option(
            Size(), "The largest size of all outputs together. The oldest outputs are deleted. Their runs are kept.",
            example="5G",
        ),
        "min_free": Option(
            Size(), "The free space on the disk of the outputs below which the oldest outputs are deleted.", example="2G"
        ),
        "dry_run": Option(Boolean(), "true: only reports what it would delete.", False, example="true"),
        "batch": Option(Integer(1, 100_000), "The number of rows that one transaction deletes.", 500, example="1000"),
    }
)  # fmt: skip

ACTIONS: Mapping[str, Option] = {
    "command": Option(
        ARGV,
        "Runs a program without a shell. Each word is a text, or {param: NAME} for the value of a parameter.",
        example="[/usr/bin/rsync, -a, /srv/in/, /srv/out/]",
    ),
    "shell": Option(
        Text(r"[\s\S]*\S[\s\S]*", "a line for /bin/sh"),
        "Runs a line with /bin/sh. The value of a parameter is in the variable SCHEDULERD_PARAM_NAME.",
        example='"df -h / | tail -1"',
    ),
    "python": Option(
        SectionOrText(PYTHON, "call"),
        "Calls a Python function in a process of its own. A text is short for {call: TEXT}.",
        example="shop.jobs:import_orders",
    ),
    "http": Option(
        SectionOrText(HTTP, "url"),
        "Makes one HTTP request and checks the response. A text is short for {url: TEXT}.",
        example="{url: https://localhost/warm, expect_status: 200}",
    ),
    "sql": Option(
        SQL,
        "Executes SQL statements in one transaction of a SQLite or PostgreSQL database.",
        example="{dsn: main_db, statement: REFRESH MATERIALIZED VIEW totals}",
    ),
    "health_check": Option(
        HEALTH_CHECK,
        "Probes databases, folders, addresses and the host in parallel.",
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
        ANALYTICS, "Computes the daily statistics of each job and reports anomalies.", example="{days: 7}"
    ),
    "cleanup": Option(CLEANUP, "Deletes old runs and outputs.", example="{older_than: 90d}"),
}  # fmt: skip
