"""The settings of the actions: what stands under the key of each."""

from __future__ import annotations

from collections.abc import Mapping

from .kinds import OneOrMore, RecordOrText, Word
from .policy import KEEP_PERIODS
from .schema import Anything, Duration, Flag, Kind, ListOf, MapOf, Option, Record, Text, TextOrSecret, Whole

SQLITE = ("sqlite://",)
POSTGRESQL = ("postgresql://", "postgres://")
SOURCE_SCHEMES: Mapping[str, Mapping[str, tuple[str, ...]]] = {  # what may be named where
    "backup": {"source": SQLITE},
    "sql": {"dsn": (*SQLITE, *POSTGRESQL)},
    "health_check": {"postgresql": POSTGRESQL, "redis": ("redis://", "rediss://", "unix://")},
}
HISTORY = "history"  # the source that is schedulerd's own database

ARGV = ListOf(
    Word(), at_least=1, expected="a list of words such as [/usr/bin/find, /srv, -delete] (for a shell line use shell:)"
)
PYTHON = Record(
    {
        "call": Option(
            Text(r"[^\W\d][\w.]*:[^\W\d][\w.]*", "MODULE:FUNCTION"), "which function is called, as module:function",
            required=True,
        ),
        "args": Option(ListOf(Anything({})), "its arguments", ()),
        "kwargs": Option(MapOf(Anything({}), r"[^\W\d]\w*", "a name of an argument"), "its arguments by name", {}),
    }
)  # fmt: skip
HTTP = Record(
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
        "follow_redirects": Option(Flag(), "true: redirects are followed, to the same host only", False),
        "response_timeout": Option(Duration(), "how long connecting and answering may take", 30.0),
    }
)
SQL = Record(
    {
        "dsn": Option(TextOrSecret(), "the name of a source, or a sqlite:// or postgresql:// URL", required=True),
        "statement": Option(Text(r"[\s\S]*\S[\s\S]*", "an SQL statement"), "what is executed; :NAME is a parameter's value"),
        "file": Option(Text(), "a file with what is executed, read at each start"),
        "statement_timeout": Option(Duration(), "how long it may take; 0 is no bound", 0.0),
    }
)
KEEP = Record({name: Option(Whole(0, 100_000), f"how many ({name}) stay") for name in KEEP_PERIODS})

ACTIONS: Mapping[str, Kind] = {
    "command": ARGV,
    "shell": Text(r"[\s\S]*\S[\s\S]*", "a line for /bin/sh"),
    "python": RecordOrText(PYTHON, "call"),
    "http": RecordOrText(HTTP, "url"),
    "sql": SQL,
    "health_check": Record(
        {
            "postgresql": Option(TextOrSecret(), "a PostgreSQL: the name of a source, or a postgresql:// URL"),
            "redis": Option(TextOrSecret(), "a Redis: the name of a source, or a redis:// URL"),
            "storage": Option(ListOf(Text()), "folders that must be writable (default: the state directory)"),
            "min_free_percent": Option(Whole(0, 100), "less free space than this is degraded", 5),
            "probe_timeout": Option(Duration(), "how long each probe may take", 5.0),
        }
    ),
    "backup": Record(
        {
            "source": Option(
                Text(),
                f"what is backed up: {HISTORY} (schedulerd's own database) or a source that is a SQLite file",
                required=True,
            ),
            "directory": Option(Text(), "where the backups go (default: backups in the state directory)"),
            "keep": Option(KEEP, "how many backups stay; without it, all of them", {}),
        }
    ),
    "analytics": Record({"days": Option(Whole(1, 3660), "how many past days are computed (again)", 1)}),
    "cleanup": Record(
        {
            "older_than": Option(Duration(), "finished runs older than this go, with their output", 90 * 86400.0),
            "batch": Option(Whole(1, 100_000), "how many rows are deleted in one transaction", 500),
        }
    ),
}
