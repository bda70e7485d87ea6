"""`schedulerctl`: parses arguments, runs a command and returns its exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..core.errors import SchedulerdError
from . import backups, health, jobs, offline, runs, stats
from .arguments import Command, Commands, Options
from .client import TOKEN_VARIABLE, Client, ClientError
from .output import REFUSED, printable_lines

SOCKETS = ("/run/schedulerd/schedulerd.sock", "/var/lib/schedulerd/schedulerd.sock")
SOCKET_VARIABLE = "SCHEDULERD_SOCKET"
UNREACHABLE, INTERRUPTED = 3, 130  # exit statuses; `run` returns that of the job
EPILOG = """examples:
  schedulerctl list
  schedulerctl history nightly_backup --limit 5
  schedulerctl run nightly_backup          exits with the exit status of the job
  schedulerctl run nightly_backup -f       the same, and shows its output
  schedulerctl logs -f nightly_backup      the output of its newest run
  schedulerctl cancel nightly_backup
  schedulerctl backups --job nightly_backup
  schedulerctl backups verify FILE         also: show, drill, hold, release, accept, forget
  schedulerctl stats --days 30
  schedulerctl why nightly_backup 2026-10-25T02:30
  schedulerctl next nightly_backup --count 3
  schedulerctl explain --cron "30 2 * * *" --timezone Europe/Rome --after 2026-10-24
  schedulerctl db status                   also: migrate, backup, copy, release
  schedulerctl pause report --reason "the printer is broken"
  SCHEDULERD_TOKEN=$(cat admin.token) schedulerctl --url http://127.0.0.1:8765 stats"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `schedulerctl`; return its exit status."""
    options = make_parser().parse_args(arguments)
    try:
        command: Command = options.command
        status = command(_client(options), options)
        sys.stdout.flush()  # raises BrokenPipeError here, and not at exit
        return status
    except SchedulerdError as error:
        print(printable_lines(f"schedulerctl: {error}"), file=sys.stderr)
        return UNREACHABLE if isinstance(error, ClientError) and not error.status else REFUSED
    except KeyboardInterrupt:
        print("\nschedulerctl: interrupted; runs continue", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit must not fail again
        return 0


def _client(options: Options) -> Client:
    if options.url:
        if not options.url.startswith(("http://", "https://")):
            raise SchedulerdError(f"--url {options.url}: expected a URL such as http://127.0.0.1:8765")
        return Client(url=options.url, token=os.environ.get(TOKEN_VARIABLE))
    path = options.socket or os.environ.get(SOCKET_VARIABLE)
    return Client(path=path or next((each for each in SOCKETS if os.path.exists(each)), SOCKETS[0]))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="schedulerctl", description="Query and control schedulerd.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    default = f"${SOCKET_VARIABLE}, or the first of {', '.join(SOCKETS)} that exists"
    parser.add_argument("--socket", metavar="PATH", help=f"the Unix socket of the daemon (default: {default})")
    parser.add_argument("--url", help=f"use the REST API at this URL, with the token in ${TOKEN_VARIABLE}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--version", action="version", version=f"schedulerctl {__version__}")
    commands = Commands(parser, "COMMAND", required=True)
    for module in (jobs, runs, health, backups, stats, offline):
        module.add_commands(commands)
    return parser
