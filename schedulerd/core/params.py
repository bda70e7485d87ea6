"""Parameters of runs: each given value is validated against the job's declaration when a run is requested.

A value is accepted only as its declared type. It reaches the program as one argument, one variable, one bound value of
a statement or one argument of a function. It is never inserted into text that a program parses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from . import patterns
from .errors import InvalidError
from .models import Param, ParamType
from .text import did_you_mean

NAME = r"[a-z][a-z0-9_]{0,31}"
BIGGEST = 2**63  # bound of integers: every database stores 64 bits
_LOC: tuple[str, ...] = ("body", "params")


def echo(value: Any) -> Any:
    """Return the part of an input that an error may quote: plain values, and None for nested ones."""
    is_plain = isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else None


def check_params(declared: Mapping[str, Param], given: Any) -> dict[str, Any]:
    """Return the values of all parameters of a job, with the defaults of those that are not given.

    Values are plain JSON: dates remain texts. Raise InvalidError for the first that is invalid, unknown or missing.
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
        expected = f": its parameters are {', '.join(declared)}" if declared else ""
        message = f"the job has no such parameter{did_you_mean(name, declared)}{expected}"
        raise InvalidError([*_LOC, name], message, echo(value), "extra_forbidden")
    try:
        return checked(param, value)
    except ValueError as error:
        raise InvalidError([*_LOC, name], f"Input should be {error}", echo(value)) from None


def checked(param: Param, value: Any) -> Any:
    """Return a value as its declared type. Raise ValueError, which describes what is expected."""
    value = _READ[param.type](param, value)
    if param.choices and value not in param.choices:
        raise ValueError(f"one of {', '.join(map(as_text, param.choices))}")
    return value


def as_text(value: Any) -> str:
    """Return a value as a command argument or an environment variable."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(param: Param, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text")
    if len(value) > param.max_length:
        raise ValueError(f"a text of at most {param.max_length} characters")
    if "\0" in value or (not param.multiline and re.search(r"[\r\n]", value)):
        raise ValueError("a text without NUL" if param.multiline else "a text of one line, without NUL")
    if param.pattern is None and value.startswith("-"):
        raise ValueError("a text that does not begin with '-': a program could read it as an option")
    if param.pattern is not None and not patterns.matches(param.pattern, value):
        raise ValueError(f"a text that matches {param.pattern}")
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
    return (
        value + 0.0 if isinstance(value, float) else value
    )  # -0.0 passes a minimum of 0, and its text would begin with '-'


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
    """Return the choice whose text equals that of `value`: choices in the configuration may be numbers."""
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"one of {', '.join(map(as_text, param.choices))}")
    return next((each for each in param.choices if as_text(each) == as_text(value)), value)


_READ: Mapping[ParamType, Callable[[Param, Any], Any]] = {
    ParamType.TEXT: _text, ParamType.INTEGER: _integer, ParamType.NUMBER: _number, ParamType.BOOLEAN: _boolean,
    ParamType.DATE: _date, ParamType.CHOICE: _choice,
}  # fmt: skip
