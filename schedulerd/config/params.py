"""Reads and checks the parameters that a job declares, and finds words of a command that a program would run."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..core import patterns
from ..core.models import Param, ParamType
from ..core.params import checked
from ..core.text import shown
from .fields import Path, Report

_INTERPRETER = re.compile(r"(ba|da|z|k|a|fi)?sh|python[0-9.]*|perl|ruby|node|php|lua|su|runuser")
_CODE = re.compile(r"-[A-Za-z]*[cer]|--(command|eval|run)")
_WRAPPERS = frozenset(
    {"env", "nice", "nohup", "setsid", "sudo", "doas", "xargs", "stdbuf", "unshare", "systemd-run", "strace"}
)
_SETS = re.compile(r"-|[A-Za-z_][A-Za-z0-9_]*=")  # an option, or a variable for env
FITTING: Mapping[ParamType, frozenset[str]] = {  # the settings that are valid for each type
    ParamType.TEXT: frozenset({"pattern", "max_length", "multiline", "choices"}),
    ParamType.INTEGER: frozenset({"minimum", "maximum", "choices"}),
    ParamType.NUMBER: frozenset({"minimum", "maximum", "choices"}),
    ParamType.BOOLEAN: frozenset(),
    ParamType.DATE: frozenset({"choices"}),
    ParamType.CHOICE: frozenset({"choices"}),
}


def params_from(read: Mapping[str, Mapping[str, Any]], path: Path, report: Report) -> dict[str, Param]:
    """Return the declarations of parameters, after reporting settings that contradict each other."""
    return {name: _declared(given, (*path, name), report) for name, given in read.items()}


def _declared(given: Mapping[str, Any], path: Path, report: Report) -> Param:
    kind = given["type"] or (ParamType.CHOICE if given["choices"] else ParamType.TEXT)
    fields = {name: value for name, value in given.items() if value is not None and name not in ("type", "default")}
    for name in sorted(fields.keys() - FITTING[kind]):
        report((*path, name), f"{name} is not valid for the type {kind}")
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
    """Return declarations in which numbers that are `words` of a command have a minimum of 0, unless one is declared.

    Otherwise, a program could read -9 as an option. A negative default or maximum shows that negative numbers are intended.
    """
    return {name: _unsigned(param) if name in words else param for name, param in declared.items()}


def _unsigned(param: Param) -> Param:
    if param.type not in (ParamType.INTEGER, ParamType.NUMBER) or param.choices or param.minimum is not None:
        return param
    is_meant = min(param.default or 0, param.maximum or 0) < 0
    return param if is_meant else replace(param, minimum=0)


def words_that_run(words: Sequence[Any]) -> dict[int, str]:
    """Return the indices of words of a command that are run as a program, each with the name of what runs it.

    None of them should be the value of a parameter: whoever starts the job would choose what runs.
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
