"""Kinds of values a setting may have: each reads a plain YAML value, says what is wrong with it, and knows its JSON Schema.

A kind never raises for bad input: it reports every problem at its path and returns something of the right type, so that
one reading of a file finds all of its mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from ..core.models import Secret
from ..core.text import did_you_mean, hidden, shown
from ..core.units import parse_duration, parse_size

Path = tuple[str | int, ...]
Report = Callable[[Path, str], None]


class Kind(Protocol):
    """Reads one value."""

    def read(self, value: Any, path: Path, report: Report) -> Any:
        """Return `value` as the program uses it, after reporting what is wrong with it."""
        ...

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of what `read` takes."""
        ...


class HiddenKey(str):
    """A key that stands where a secret may have been put by mistake: it is no part of a problem's path."""

    __slots__ = ()


def may_hold_secret(kind: Any) -> bool:
    """Return whether a secret may stand in a value of a kind, or in one of the kinds that it is made of."""
    if isinstance(kind, Record):
        return any(may_hold_secret(option.kind) for option in kind.options.values())
    inner = [getattr(kind, name, None) for name in ("kind", "record", "then", "other")]
    return getattr(kind, "is_secret", False) or any(may_hold_secret(each) for each in inner if each is not None)


def told(kind: Any, value: Any) -> str:
    """Return `value`, which was meant to be of a kind, as an error shows it."""
    return hidden(value) if may_hold_secret(kind) else shown(value)


def told_key(kind: Any, key: str) -> tuple[str, str]:
    """Return a wrong key of a mapping of a kind as the step of a path, and as an error shows it."""
    if re.fullmatch(_PLAIN_KEY, key) or not may_hold_secret(kind):
        return key, repr(key)
    return HiddenKey(key), f"a key of {len(key)} characters"


@dataclass(frozen=True)
class Text:
    """A text; numbers are taken as they are written. `pattern` must match all of it. No error shows one that `is_secret`."""

    pattern: str = ""
    expected: str = "a text"
    is_secret: bool = False

    def read(self, value: Any, path: Path, report: Report) -> str:
        """Return the text."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            report(path, f"{told(self, value)} is not {self.expected}")
            return ""
        if "\0" in value or (self.pattern and not re.fullmatch(self.pattern, value)):
            report(path, f"{told(self, value)} is not {self.expected}")
        return value

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"type": ["string", "number"], **({"pattern": f"^(?:{self.pattern})$"} if self.pattern else {})}


@dataclass(frozen=True)
class Flag:
    """True or false, and no other word for them."""

    def read(self, value: Any, path: Path, report: Report) -> bool:
        """Return the flag."""
        if not isinstance(value, bool):
            report(path, f"expected true or false, not {shown(value)}")
        return value is True

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Whole:
    """A whole number within bounds."""

    low: int = 0
    high: int = 1_000_000_000

    def read(self, value: Any, path: Path, report: Report) -> int:
        """Return the number."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            report(path, f"expected a whole number from {self.low} to {self.high}, not {shown(value)}")
            return self.low
        return value

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Either:
    """A value of the kind `then` when it is a `when`, and of another kind when it is not."""

    when: type[Any]
    then: Kind
    other: Kind

    def read(self, value: Any, path: Path, report: Report) -> Any:
        """Return what the kind that it is of makes of it."""
        return (self.then if isinstance(value, self.when) else self.other).read(value, path, report)

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"anyOf": [self.then.schema(), self.other.schema()]}


@dataclass(frozen=True)
class Duration:
    """Seconds, or a text such as `1h30m`."""

    def read(self, value: Any, path: Path, report: Report) -> float:
        """Return seconds."""
        try:
            return parse_duration(value)
        except ValueError as error:
            report(path, f"{shown(value)}: {error}")
            return 0.0

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        part = r"\d+(\.\d+)?"
        return {
            "type": ["string", "number"],
            "minimum": 0,
            "pattern": rf"^\s*({part}|({part}\s*(ms|s|m|h|d|w)\s*)+)\s*$",
        }


@dataclass(frozen=True)
class Size:
    """Bytes, or a text such as `10M`."""

    def read(self, value: Any, path: Path, report: Report) -> int:
        """Return bytes."""
        try:
            return parse_size(value)
        except ValueError as error:
            report(path, f"{shown(value)}: {error}")
            return 0

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"type": ["string", "integer"], "minimum": 0, "pattern": r"^\s*\d+(\.\d+)?\s*[BKMGTbkmgt]?([iI]?[bB])?\s*$"}


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: type[StrEnum]

    def read(self, value: Any, path: Path, report: Report) -> StrEnum:
        """Return the member of the enumeration."""
        known = [str(word) for word in self.words]
        if value in known:
            return self.words(value)
        guess = did_you_mean(value, known) if isinstance(value, str) else ""
        report(path, f"expected {' or '.join(known)}, not {shown(value)}{guess}")
        return next(iter(self.words))

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"enum": [str(word) for word in self.words]}


@dataclass(frozen=True)
class ListOf:
    """A list whose elements are all of one kind."""

    kind: Kind
    at_least: int = 0
    expected: str = "a list"

    def read(self, value: Any, path: Path, report: Report) -> tuple[Any, ...]:
        """Return the elements."""
        if not isinstance(value, list) or len(value) < self.at_least:
            report(path, f"expected {self.expected}, not {'an empty list' if value == [] else told(self, value)}")
            return ()
        return tuple(self.kind.read(each, (*path, index), report) for index, each in enumerate(value))

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"type": "array", "items": self.kind.schema(), "minItems": self.at_least}


@dataclass(frozen=True)
class MapOf:
    """A mapping whose keys match `key_pattern` and whose values are all of one kind."""

    kind: Kind
    key_pattern: str
    key_expected: str

    def read(self, value: Any, path: Path, report: Report) -> dict[str, Any]:
        """Return the mapping."""
        if not isinstance(value, Mapping):
            report(path, f"expected a mapping, not {told(self, value)}")
            return {}
        left_out = set()
        for key in value:
            if not re.fullmatch(self.key_pattern, key):
                step, text = told_key(self, key)
                report((*path, step), f"{text} is not {self.key_expected}")
                left_out |= {key} if isinstance(step, HiddenKey) else set()
        return {key: self.kind.read(each, (*path, key), report) for key, each in value.items() if key not in left_out}

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {
            "type": "object",
            "propertyNames": {"pattern": f"^(?:{self.key_pattern})$"},
            "additionalProperties": self.kind.schema(),
        }


_PLAIN_KEY = r"[A-Za-z0-9_.<-]{1,64}"  # what no URL or pair of a name and a value is
# Where secrets are, and what names one there: no URL that was put in its place
SECRET_SOURCES = {"env": r"[A-Za-z_][A-Za-z0-9_]*", "file": r"(?!.*://)[\s\S]+", "credential": r"[^/=@]+"}


@dataclass(frozen=True)
class TextOrSecret:
    """A text, or a reference `{env: NAME}`, `{file: PATH}`, `{credential: NAME}`."""

    is_secret = True

    def read(self, value: Any, path: Path, report: Report) -> str | Secret:
        """Return the text or the reference."""
        if isinstance(value, Mapping):
            if len(value) == 1:
                ((source, name),) = value.items()
                if source in SECRET_SOURCES and isinstance(name, str) and re.fullmatch(SECRET_SOURCES[source], name):
                    return Secret(source, name)
            report(path, "a secret is one of {env: NAME}, {file: PATH}, {credential: NAME}")
            return ""
        if isinstance(value, bool):
            value = str(value).lower()
        return Text(expected="a text, or a secret such as {env: NAME}", is_secret=True).read(value, path, report)

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        secret = {
            "type": "object",
            "properties": {source: {"type": "string", "minLength": 1} for source in SECRET_SOURCES},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
        return {"anyOf": [{"type": ["string", "number", "boolean"]}, secret]}


@dataclass(frozen=True)
class Anything:
    """A value that another part of the program checks; `described` is its JSON Schema."""

    described: Mapping[str, Any]
    is_secret = True

    def read(self, value: Any, path: Path, report: Report) -> Any:
        """Return the value as it is."""
        return value

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return dict(self.described)


@dataclass(frozen=True)
class Option:
    """One setting: its kind, what it means, and what it is when it is not set."""

    kind: Kind
    help: str
    default: Any = None
    required: bool = False


@dataclass(frozen=True)
class Record:
    """A mapping with known keys, each with an `Option`; every other key is a mistake."""

    options: Mapping[str, Option]
    check: Callable[[dict[str, Any], Path, Report], None] | None = field(default=None, compare=False)

    def read(self, value: Any, path: Path, report: Report) -> dict[str, Any]:
        """Return every option with its value or default."""
        if not isinstance(value, Mapping):
            report(path, f"expected a mapping, not {told(self, value)}")
            value = {}
        given = self.read_given(value, path, report)
        for name, option in self.options.items():
            if option.required and name not in value:
                report(path, f"{name!r} is missing: {option.help}")
        full = {name: given.get(name, option.default) for name, option in self.options.items()}
        if self.check is not None:
            self.check(full, path, report)
        return full

    def read_given(self, value: Mapping[str, Any], path: Path, report: Report) -> dict[str, Any]:
        """Return only what is set."""
        options = self.options
        out = {}
        for key, each in value.items():
            option = options.get(key)
            if option is None:
                step, text = told_key(self, key)
                what = f"{text} is unknown" if isinstance(step, HiddenKey) else f"unknown key {text}"
                report((*path, step), f"{what}{did_you_mean(key, options)}")
            else:
                out[key] = option.kind.read(each, (*path, key), report)
        return out

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        required = [name for name, option in self.options.items() if option.required]
        return {
            "type": "object",
            "properties": {
                name: {**option.kind.schema(), "description": option.help} for name, option in self.options.items()
            },
            "additionalProperties": False,
            **({"required": required} if required else {}),
        }


def one_of(names: Sequence[str], given: Mapping[str, Any]) -> list[str]:
    """Return which of `names` are set in `given`."""
    return [name for name in names if name in given]
