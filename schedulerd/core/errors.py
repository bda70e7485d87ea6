"""Every error that schedulerd raises on purpose; each class is one sentence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .text import one_line

LONGEST_QUOTE = 200  # characters of a value that an error shows
_LONGEST = 2000
_QUOTES = re.compile(r"""'(?:[^'\\]|\\.){201,}'|"(?:[^"\\]|\\.){201,}"|\S{201,}""", re.DOTALL)


def brief(text: str) -> str:
    """Return an error's text with at most LONGEST_QUOTE characters of any value that it quotes."""
    if len(text) <= LONGEST_QUOTE:
        return text
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
    return _QUOTES.sub(lambda found: f"{found[0][: LONGEST_QUOTE - 2]}…{found[0][-1]}", text)


class SchedulerdError(Exception):
    """Something that schedulerd refuses or cannot do, told in words for the person who asked.

    `exit_status` is what the daemon exits with when this error ends it (sysexits.h where one fits).
    """

    exit_status = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration file: where it is, at which path of the document, and what would be right."""

    file: str
    line: int
    column: int
    path: str
    text: str
    is_warning: bool = False

    def __post_init__(self) -> None:
        if len(self.path) > LONGEST_QUOTE:
            object.__setattr__(self, "path", f"{self.path[: LONGEST_QUOTE - 1]}…")
        object.__setattr__(self, "text", brief(self.text))

    def __str__(self) -> str:
        kind = "warning: " if self.is_warning else ""
        path = f"{self.path}: " if self.path else ""
        return one_line(f"{self.file}:{self.line}:{self.column}: {kind}{path}{self.text}")


class ConfigError(SchedulerdError):
    """The configuration has mistakes; `problems` names each of them."""

    exit_status = 2

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class TriggerError(SchedulerdError):
    """A trigger's text cannot be understood or can never be due; names the field, the text and why.

    `loc` is the path to it in the mapping that the trigger was made from.
    """

    def __init__(self, field: str, text: str, why: str, loc: tuple[str | int, ...] = ()) -> None:
        super().__init__(f"{field} {text!r}: {why}")
        self.field = field
        self.text = text
        self.why = why
        self.loc = loc or (field,)

    def inside(self, *path: str | int) -> TriggerError:
        """Return the same error as one further inside: at `path` and then where it was."""
        return TriggerError(self.field, self.text, self.why, (*path, *self.loc))


class UnsafeError(SchedulerdError):
    """A setting or a file's permissions would open a door that was not asked for (EX_CONFIG)."""

    exit_status = 78


class AlreadyRunningError(SchedulerdError):
    """Another daemon holds this state directory or socket (EX_TEMPFAIL)."""

    exit_status = 75


class StoreError(SchedulerdError):
    """The history store refused, is damaged, or belongs to a newer program."""


class StoreAwayError(StoreError):
    """The database cannot be written for now (disk full, locked, server down); what was asked of it may be tried again.

    `is_unclear` says that it may have been made all the same: the answer was lost.
    """

    is_unclear = False


class PartlyWrittenError(StoreAwayError):
    """Of a group of rows some could not be written (`left`), while others are in the ledger (`taken`); both by run_id."""

    def __init__(self, text: str, taken: frozenset[str], left: frozenset[str]) -> None:
        super().__init__(text)
        self.taken = taken
        self.left = left


class StartError(SchedulerdError):
    """A run's process or function could not be started."""


class SecretError(SchedulerdError):
    """A secret's reference leads nowhere; names the reference, never a value."""


class NotFoundError(SchedulerdError):
    """There is no such thing."""


class GoneError(SchedulerdError):
    """It was there, and somebody has removed it."""


class ConflictError(SchedulerdError):
    """The thing is in a state in which this cannot be done to it; says the way out."""


class StoppingError(SchedulerdError):
    """The daemon is stopping and takes no new work."""


class BusyError(SchedulerdError):
    """The same costly question is being answered already: ask again in a moment."""


class UnauthenticatedError(SchedulerdError):
    """The caller did not say who they are, or not so that it can be believed."""


class ForbiddenError(SchedulerdError):
    """The caller is known and may not do this."""


class InvalidError(SchedulerdError):
    """A request's value is outside what is allowed: `loc` is the path to it, such as `["query", "limit"]`."""

    def __init__(self, loc: list[str | int], message: str, value: Any, kind: str = "value_error") -> None:
        super().__init__(message)
        self.detail = {"type": kind, "loc": loc, "msg": message, "input": value}


class WrongTypeError(SchedulerdError):
    """A request's body is not of the type that is taken, which is JSON."""
