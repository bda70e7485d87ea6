"""The commands that need no daemon: `explain` and `db`.

They compute with triggers, the configuration and the store, which take long to load. This module only declares them. Each
loads its own module when it is chosen, so that the other commands start fast.
"""

from __future__ import annotations

import argparse
import re

from ..config.defaults import DEFAULT_CONFIG, DEFAULT_SCHEMA, SCHEMA_PATTERN
from .arguments import HISTORY_URL, MOST_TIMES, Command, Commands, Options
from .client import Client

DEFAULT_URL = f"{HISTORY_URL} (default: store: of the configuration)"


def add_commands(commands: Commands) -> None:
    """Add the commands to the parser."""
    _add_explain(commands)
    _add_db(commands)


def _add_explain(commands: Commands) -> None:
    parser = commands.add("explain", _explain, "what a trigger means, and its next times; needs no daemon")
    trigger = parser.add_mutually_exclusive_group(required=True)
    trigger.add_argument("--cron", metavar="TEXT", help='such as "30 2 * * mon-fri"')
    trigger.add_argument("--calendar", metavar="TEXT", help='systemd\'s OnCalendar, such as "Mon..Fri 08:30"')
    trigger.add_argument("--every", metavar="TEXT", help='such as 10m, or "monday at 09:30"')
    trigger.add_argument("--at", metavar="TIME", help="such as 2027-01-01T03:00:00")
    parser.add_argument("--timezone", default="UTC", help="an IANA name (%(default)s)")
    parser.add_argument(
        "--after", metavar="TIME", help="only times after this one (default: now); without an offset, in --timezone"
    )
    parser.add_argument("--count", type=int, default=10, help=f"number of times, 1 to {MOST_TIMES} (%(default)s)")
    parser.add_argument("--gap", choices=("run", "skip"), help="a time that daylight saving leaves out: run or skip it")
    parser.add_argument("--repeat", choices=("once", "both"), help="a time that daylight saving repeats: run once or both")
    parser.add_argument("--blackout", action="append", metavar="WINDOW", help="such as sat..sun; may be repeated")


def _explain(_client: Client, options: Options) -> int:
    from .explain import print_explanation

    return print_explanation(options)


def _add_db(commands: Commands) -> None:
    parser = commands.add("db", _db, "maintain the history, without a daemon: status, migrate, backup, copy, release")
    verbs = Commands(parser, "VERB", required=False)
    parser.set_defaults(command=_without_verb(parser))
    for name, text in (
        ("status", "its version, size and rows; changes nothing"),
        ("migrate", "bring its schema up to date; the daemon must be stopped"),
        ("release", "let the next daemon own a PostgreSQL history; the present owner must be stopped for good"),
    ):
        _add_verb(verbs, name, text).add_argument("place", nargs="?", metavar="URL", help=DEFAULT_URL)
    backup = _add_verb(verbs, "backup", "write a checked copy of a SQLite history to a file; the daemon may be running")
    backup.add_argument("file", metavar="FILE", help="the file to create, with mode 0600")
    backup.add_argument("place", nargs="?", metavar="URL", help=DEFAULT_URL)
    copy = _add_verb(verbs, "copy", "copy everything to another history; the daemon must be stopped; may be repeated")
    copy.add_argument("target", metavar="TARGET", help=HISTORY_URL)
    copy.add_argument("place", nargs="?", metavar="SOURCE", help=DEFAULT_URL)


def _without_verb(parser: argparse.ArgumentParser) -> Command:
    def command(_client: Client, _options: Options) -> int:
        parser.error("expected one of status, migrate, backup, copy, release")

    return command


def _add_verb(verbs: Commands, name: str, text: str) -> argparse.ArgumentParser:
    parser = verbs.add(name, _db, text)
    parser.set_defaults(verb=name)
    parser.add_argument(
        "--config", default=DEFAULT_CONFIG, metavar="FILE", help="the configuration whose store: is used (%(default)s)"
    )
    parser.add_argument(
        "--schema", type=_schema, help=f"the schema in PostgreSQL (default: store_schema:, or {DEFAULT_SCHEMA})"
    )
    return parser


def _schema(text: str) -> str:
    if not re.fullmatch(SCHEMA_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected lower-case letters, digits and '_', not beginning with pg_")
    return text


def _db(_client: Client, options: Options) -> int:
    from .db import VERBS

    return VERBS[options.verb](options)
