"""The errors that schedulerd raises on purpose."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .text import one_line

LONGEST_QUOTE = 200  # characters of a value that an error shows
_LONGEST = 2000
_QUOTES = re.compile(r"""'(?:[^'\\]|\\.){201,}'|"(?:[^"\\]|\\.){201,}"|\S{201,}""", re.DOTALL)


def brief(text: str) -> str:
    """Return a message in which each quoted value is cut to LONGEST_QUOTE characters."""
    if len(text) <= LONGEST_QUOTE:
        return text
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
    return _QUOTES.sub(lambda found: f"{found[0][: LONGEST_QUOTE - 2]}…{found[0][-1]}", text)


class SchedulerdError(Exception):
    """An operation was refused or is impossible; the message is written for the person who requested it.

    `exit_status` is the exit status of the daemon when this error ends it (from sysexits.h where one fits).
    """

    exit_status = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake in a configuration file: its position, its path in the document, and what is expected instead."""

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
    """The configuration contains mistakes; `problems` lists all of them."""

    exit_status = 2

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class TriggerError(SchedulerdError):
    """A trigger cannot be parsed or can never be due; `field`, `text` and `why` name the setting, its value and the reason.

    `loc` is the path to the setting in the mapping from which the trigger is made.
    """

    def __init__(self, field: str, text: str, why: str, loc: tuple[str | int, ...] = ()) -> None:
        super().__init__(f"{field} {text!r}: {why}")
        self.field = field
        self.text = text
        self.why = why
        self.loc = loc or (field,)

    def inside(self, *path: str | int) -> TriggerError:
        """Return the same error with `path` before its location."""
        return TriggerError(self.field, self.text, self.why, (*path, *self.loc))


class UnsafeError(SchedulerdError):
    """A setting or the permissions of a file would give access that was not configured (EX_CONFIG)."""

    exit_status = 78


class AlreadyRunningError(SchedulerdError):
    """Another daemon uses this state directory or socket (EX_TEMPFAIL)."""

    exit_status = 75


class StoreError(SchedulerdError):
    """The store refused a request, is damaged, or was written by a newer version."""


class StoreAwayError(StoreError):
    """The store cannot be written for now (disk full, locked, server down); the operation can be repeated.

    `is_unclear` is true when the operation may have succeeded although its confirmation was lost.
    """

    is_unclear = False


class PartlyWrittenError(StoreAwayError):
    """Of a group of rows, those in `taken` were written and those in `left` were not; both are sets of run ids."""

    def __init__(self, text: str, taken: frozenset[str], left: frozenset[str]) -> None:
        super().__init__(text)
        self.taken = taken
        self.left = left


class StartError(SchedulerdError):
    """The process or function of a run cannot be started."""


class SecretError(SchedulerdError):
    """A reference to a secret cannot be resolved; the message names the reference and never a value."""


class NotFoundError(SchedulerdError):
    """The requested object does not exist."""


class GoneError(SchedulerdError):
    """The requested object existed and has been removed."""


class ConflictError(SchedulerdError):
    """The state of the object does not permit the operation; the message names a way out."""


class StoppingError(SchedulerdError):
    """The daemon is shutting down and accepts no new work."""


class BusyError(SchedulerdError):
    """The same expensive request is already being processed; it can be repeated soon."""


class UnauthenticatedError(SchedulerdError):
    """The request carries no valid credentials."""


class ForbiddenError(SchedulerdError):
    """The caller is authenticated and lacks the required role."""


class InvalidError(SchedulerdError):
    """A value of a request is not permitted; `loc` is the path to it, such as `["query", "limit"]`."""

    def __init__(self, loc: list[str | int], message: str, value: Any, kind: str = "value_error") -> None:
        super().__init__(message)
        self.detail = {"type": kind, "loc": loc, "msg": message, "input": value}


class WrongTypeError(SchedulerdError):
    """The content type of the request body is not JSON."""
