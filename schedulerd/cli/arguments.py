"""What the parsers of all commands of `schedulerctl` have in common, and the types of their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ..core.units import parse_duration
from .client import Client

HISTORY_URL = "sqlite:///PATH or postgresql://…; for a URL with a password env:NAME or file:PATH"
MOST_TIMES = 1000  # that `explain` prints

Options = argparse.Namespace
Command = Callable[[Client, Options], int]  # returns the exit status


class Commands:
    """The subcommands of a parser."""

    def __init__(self, parser: argparse.ArgumentParser, metavar: str, *, required: bool) -> None:
        self._parsers = parser.add_subparsers(metavar=metavar, required=required)

    def add(self, name: str, command: Command, text: str, argument: str | None = None) -> argparse.ArgumentParser:
        """Add a command and return its parser. `argument` names its positional argument, such as `JOB`.

        The value of the argument is in the options under that name in lower case.
        """
        parser = self._parsers.add_parser(name, help=text, description=text)
        parser.set_defaults(command=command)
        parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
        if argument is not None:
            parser.add_argument(argument.lower(), metavar=argument)
        return parser


def whole_number(text: str) -> int:
    """Return a number from 0 up. Raise ArgumentTypeError."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number")
    return int(text)


def positive_number(text: str) -> int:
    """Return a number from 1 up. Raise ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return int(text)


def duration(text: str) -> float:
    """Return seconds. Raise ArgumentTypeError."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def parameter(text: str) -> tuple[str, str]:
    """Return the name and the value of `NAME=VALUE`. Raise ArgumentTypeError."""
    name, is_given, value = text.partition("=")
    if not name or not is_given:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE")
    return name, value
