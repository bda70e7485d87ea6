"""The parameters of a job: what it declares, and what somebody gives when they ask for a run.

A value is taken only as what it is declared to be. It reaches the program as one word, one variable, one bound value of a
statement or one argument of a function, and is never pasted into a text that anything reads as a program.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from . import patterns
from .errors import InvalidError
from .model import Param, ParamType
from .schema import Path, Report, did_you_mean, shown

NAME = r"[a-z][a-z0-9_]{0,31}"
BIGGEST = 2**63  # of whole numbers: what every database keeps
_INTERPRETER = re.compile(r"(ba|da|z|k|a|fi)?sh|python[0-9.]*|perl|ruby|node|php|lua|su|runuser")
_CODE = re.compile(r"-[A-Za-z]*[cer]|--(command|eval|run)")
_WRAPPERS = frozenset(
    {"env", "nice", "nohup", "setsid", "sudo", "doas", "xargs", "stdbuf", "unshare", "systemd-run", "strace"}
)
_SETS = re.compile(r"-|[A-Za-z_][A-Za-z0-9_]*=")  # an option, or a variable for env
_LOC: tuple[str, ...] = ("body", "params")


def echo(value: Any) -> Any:
    """Return what an error shows of an input: plain values; of a nested one, who sent it knows what it was."""
    is_plain = isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else None


def check_params(declared: Mapping[str, Param], given: Any) -> dict[str, Any]:
    """Return the values of all parameters of a job, defaults where none was given.

    Values are plain JSON: dates stay texts. Raise InvalidError at the first that is wrong, unknown or missing.
    """
    if given is not None and not isinstance(given, dict):
        raise InvalidError([*_LOC], "Input should be a valid dictionary", echo(given), "dict_type")
    values = {name: _given(declared, name, value) for name, value in (given or {}).items()}
    for name, param in declared.items():
        if name not in values and param.default is None:
            raise InvalidError([*_LOC, name], "Field required", None, "missing")
    return {name: values.get(name, param.default) for name, param in declared.items()}


def _given(declared: Mapping[str, Param], name: str, value: Any) -> Any:
    param = declared.get(name)
    if param is None:
        expected = f": it has {', '.join(declared)}" if declared else ""
        message = f"the job takes no such parameter{did_you_mean(name, declared)}{expected}"
        raise InvalidError([*_LOC, name], message, echo(value), "extra_forbidden")
    try:
        return checked(param, value)
    except ValueError as error:
        raise InvalidError([*_LOC, name], f"Input should be {error}", echo(value)) from None


def checked(param: Param, value: Any) -> Any:
    """Return a value as its declaration has it. Raise ValueError, which says what is expected."""
    value = _READ[param.type](param, value)
    if param.choices and value not in param.choices:
        raise ValueError(f"one of {', '.join(map(as_text, param.choices))}")
    return value


def as_text(value: Any) -> str:
    """Return a value as a word or a variable has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def params_from(read: Mapping[str, Mapping[str, Any]], path: Path, report: Report) -> dict[str, Param]:
    """Return the declarations in what `options.PARAM` has read, after reporting what contradicts itself."""
    return {name: _declared(given, (*path, name), report) for name, given in read.items()}


def _declared(given: Mapping[str, Any], path: Path, report: Report) -> Param:
    kind = given["type"] or (ParamType.CHOICE if given["choices"] else ParamType.TEXT)
    fields = {name: value for name, value in given.items() if value is not None and name not in ("type", "default")}
    for name in sorted(fields.keys() - FITTING[kind]):
        report((*path, name), f"{name} does not go with the type {kind}")
        del fields[name]
    if kind is ParamType.CHOICE and not given["choices"]:
        report(path, "a choice needs choices: [A, B]")
    if given["pattern"] is not None and (why := _why_no_pattern(given["pattern"])):
        report((*path, "pattern"), f"{shown(given['pattern'])} {why}")
        fields.pop("pattern", None)
    param = Param(type=kind, **fields)
    if given["default"] is None:
        return param
    try:
        return Param(type=kind, default=checked(param, given["default"]), **fields)
    except ValueError as error:
        report((*path, "default"), f"{shown(given['default'])} is not {error}")
        return param


def without_options(declared: Mapping[str, Param], words: Collection[str]) -> dict[str, Param]:
    """Return declarations of which the numbers among the `words` of a command are at least 0, where no minimum is declared.

    A program could take -9 for an option, as with the `-` of a text. A negative default or maximum says that it is meant.
    """
    return {name: _unsigned(param) if name in words else param for name, param in declared.items()}


def _unsigned(param: Param) -> Param:
    if param.type not in (ParamType.INTEGER, ParamType.NUMBER) or param.choices or param.minimum is not None:
        return param
    is_meant = min(param.default or 0, param.maximum or 0) < 0
    return param if is_meant else replace(param, minimum=0)


def words_that_run(words: Sequence[Any]) -> dict[int, str]:
    """Return which words of a command a program reads as a program itself, with its name, by their index.

    The value of a parameter must be none of them: who triggers the job would choose what runs.
    """
    program = os.path.basename(words[0]) if words and isinstance(words[0], str) else ""
    if _INTERPRETER.fullmatch(program):
        return {at + 1: program for at, word in enumerate(words[:-1]) if isinstance(word, str) and _CODE.fullmatch(word)}
    if program in _WRAPPERS:
        first = next((at for at, word in enumerate(words) if at and not (isinstance(word, str) and _SETS.match(word))), 0)
        return {first: program} if first else {}
    return dict.fromkeys(range(2, len(words)), "the shell of the other host") if program == "ssh" else {}


def _why_no_pattern(text: str) -> str | None:
    try:
        patterns.compiled(text)
    except patterns.PatternError as error:
        return str(error)
    return None


def _text(param: Param, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text")
    if len(value) > param.max_length:
        raise ValueError(f"a text of at most {param.max_length} characters")
    if "\0" in value or (not param.multiline and re.search(r"[\r\n]", value)):
        raise ValueError("a text without NUL" if param.multiline else "a text of one line, without NUL")
    if param.pattern is None and value.startswith("-"):
        raise ValueError("a text that begins with no '-': a program could take it for an option")
    if param.pattern is not None and not patterns.matches(param.pattern, value):
        raise ValueError(f"a text like {param.pattern}")
    return value


def _integer(param: Param, value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not -BIGGEST <= value < BIGGEST:
        raise ValueError("a whole number")
    _bounded(param, value)
    return value


def _number(param: Param, value: Any) -> float:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,17}(\.[0-9]{1,17})?", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < BIGGEST:
        raise ValueError("a number")
    _bounded(param, value)
    return value + 0.0 if isinstance(value, float) else value  # no -0.0: it is not below 0, and its word begins with a '-'


def _bounded(param: Param, value: float) -> None:
    if param.minimum is not None and value < param.minimum:
        raise ValueError(f"greater than or equal to {param.minimum:g}")
    if param.maximum is not None and value > param.maximum:
        raise ValueError(f"less than or equal to {param.maximum:g}")


def _boolean(_param: Param, value: Any) -> bool:
    if isinstance(value, str) and value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _date(_param: Param, value: Any) -> str:
    try:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            return date.fromisoformat(value).isoformat()
    except ValueError:
        pass
    raise ValueError("a date such as 2027-01-31")


def _choice(param: Param, value: Any) -> Any:
    """Return the choice that is written like `value`: a choice of the file may be a number."""
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"one of {', '.join(map(as_text, param.choices))}")
    return next((each for each in param.choices if as_text(each) == as_text(value)), value)


_READ: Mapping[ParamType, Callable[[Param, Any], Any]] = {
    ParamType.TEXT: _text, ParamType.INTEGER: _integer, ParamType.NUMBER: _number, ParamType.BOOLEAN: _boolean,
    ParamType.DATE: _date, ParamType.CHOICE: _choice,
}  # fmt: skip
FITTING: Mapping[ParamType, frozenset[str]] = {  # which settings go with which type
    ParamType.TEXT: frozenset({"pattern", "max_length", "multiline", "choices"}),
    ParamType.INTEGER: frozenset({"minimum", "maximum", "choices"}),
    ParamType.NUMBER: frozenset({"minimum", "maximum", "choices"}),
    ParamType.BOOLEAN: frozenset(),
    ParamType.DATE: frozenset({"choices"}),
    ParamType.CHOICE: frozenset({"choices"}),
}
