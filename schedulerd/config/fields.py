"""Fields of one value: each reads a plain YAML value, reports what is wrong with it, and knows its JSON Schema.

A field never raises for invalid input. It reports every problem with its path and returns a value of the right type, so
that one pass over a file finds all of its mistakes. Fields that consist of others are in `composites.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from ..core.models import ParamWord, Secret
from ..core.proxies import Network, network_from
from ..core.text import did_you_mean, hidden, shown
from ..core.units import parse_duration, parse_size

Path = tuple[str | int, ...]
Report = Callable[[Path, str], None]

UMASK = r"0?[0-7]{1,3}"
IONICE_CLASSES = {"realtime": 1, "best-effort": 2, "idle": 3}
IONICE = r"idle|(best-effort|realtime)(:[0-7])?"
# Where a secret is stored, and the names that are valid there; none of them matches a URL written by mistake.
SECRET_SOURCES = {"env": r"[A-Za-z_][A-Za-z0-9_]*", "file": r"(?!.*://)[\s\S]+", "credential": r"[^/=@]+"}
_PLAIN_KEY = r"[A-Za-z0-9_.<-]{1,64}"  # matches neither a URL nor a pair of a name and a value


class Field(Protocol):
    """Reads one value."""

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        ...

    def read(self, value: Any, path: Path, report: Report) -> Any:
        """Return `value` as the program uses it, after reporting what is wrong with it."""
        ...

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of the values that `read` accepts."""
        ...


class HiddenKey(str):
    """A key that may be a secret in the wrong place. No error shows it in a path."""

    __slots__ = ()


def may_hold_secret(field: Any) -> bool:
    """Return whether a value of a field, or of one of the fields that it consists of, may contain a secret."""
    options = getattr(field, "options", None)
    if options is not None:
        return any(may_hold_secret(option.kind) for option in options.values())
    inner = [getattr(field, name, None) for name in ("kind", "section", "then", "other")]
    return getattr(field, "is_secret", False) or any(may_hold_secret(each) for each in inner if each is not None)


def format_value(field: Any, value: Any) -> str:
    """Return an invalid value of a field as an error shows it."""
    return hidden(value) if may_hold_secret(field) else shown(value)


def format_key(field: Any, key: str) -> tuple[str, str]:
    """Return an invalid key of a mapping as a step of a path, and as an error shows it."""
    if re.fullmatch(_PLAIN_KEY, key) or not may_hold_secret(field):
        return key, repr(key)
    return HiddenKey(key), f"a key of {len(key)} characters"


@dataclass(frozen=True)
class Text:
    """A text. Numbers are accepted as they are written.

    `pattern` must match all of it. `expected` describes a valid text. No error shows the value of a field that `is_secret`.
    """

    pattern: str = ""
    expected: str = "a text"
    is_secret: bool = False

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "text"

    def read(self, value: Any, path: Path, report: Report) -> str:
        """Return the text."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            report(path, f"{format_value(self, value)} is not {self.expected}")
            return ""
        if "\0" in value or (self.pattern and not re.fullmatch(self.pattern, value)):
            report(path, f"{format_value(self, value)} is not {self.expected}")
        return value

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"type": ["string", "number"], **({"pattern": f"^(?:{self.pattern})$"} if self.pattern else {})}


@dataclass(frozen=True)
class Boolean:
    """`true` or `false`. No other word is accepted for them."""

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "boolean"

    def read(self, value: Any, path: Path, report: Report) -> bool:
        """Return the value, False for an invalid one."""
        if not isinstance(value, bool):
            report(path, f"expected true or false, not {shown(value)}")
        return value is True

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Integer:
    """A whole number from `low` to `high`."""

    low: int = 0
    high: int = 1_000_000_000

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "integer"

    def read(self, value: Any, path: Path, report: Report) -> int:
        """Return the number, `low` for an invalid one."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            report(path, f"expected a whole number from {self.low} to {self.high}, not {shown(value)}")
            return self.low
        return value

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`. When `above_zero`, 0 is invalid."""

    low: float
    high: float
    above_zero: bool = False

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "number"

    def read(self, value: Any, path: Path, report: Report) -> Any:
        """Return the number, an integer or a float; `high` for an invalid one."""
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not self.low <= value <= self.high or (self.above_zero and value <= 0):
            bounds = f"above 0, up to {self.high:g}" if self.above_zero else f"from {self.low:g} to {self.high:g}"
            report(path, f"expected a number {bounds}, not {shown(value)}")
            return self.high
        return value

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        bound = "exclusiveMinimum" if self.above_zero else "minimum"
        return {"type": "number", bound: self.low, "maximum": self.high}


@dataclass(frozen=True)
class Duration:
    """A number of seconds, or a text such as `1h30m`."""

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "duration"

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
    """A number of bytes, or a text such as `10M`."""

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "size"

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
class EnumOf:
    """One of the words of an enumeration."""

    words: type[StrEnum]

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return " | ".join(map(str, self.words))

    def read(self, value: Any, path: Path, report: Report) -> StrEnum:
        """Return the member of the enumeration, its first one for an invalid value."""
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
class TextOrSecret:
    """A text, or a reference `{env: NAME}`, `{file: PATH}` or `{credential: NAME}`."""

    is_secret = True

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "text or secret"

    def read(self, value: Any, path: Path, report: Report) -> str | Secret:
        """Return the text or the reference."""
        if isinstance(value, Mapping):
            if len(value) == 1:
                ((source, name),) = value.items()
                if source in SECRET_SOURCES and isinstance(name, str) and re.fullmatch(SECRET_SOURCES[source], name):
                    return Secret(source, name)
            report(path, "expected a secret: one of {env: NAME}, {file: PATH}, {credential: NAME}")
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
class CommandWord:
    """A word of a command: a text, or `{param: NAME}` for the value of a parameter."""

    is_secret = True

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "text"

    def read(self, value: Any, path: Path, report: Report) -> str | ParamWord:
        """Return the text, or the parameter."""
        if not isinstance(value, Mapping):
            return Text(is_secret=True).read(value, path, report)
        name = value.get("param")
        if len(value) != 1 or not isinstance(name, str):
            report(path, "expected a text, or {param: NAME} for the value of a parameter")
            return ""
        return ParamWord(name)

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        param = {
            "type": "object", "properties": {"param": {"type": "string"}}, "required": ["param"],
            "additionalProperties": False,
        }  # fmt: skip
        return {"anyOf": [Text().schema(), param]}


@dataclass(frozen=True)
class AddressRange:
    """An IP address, or a network of addresses."""

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "address or network"

    def read(self, value: Any, path: Path, report: Report) -> Network | None:
        """Return the network. An address is a network with one member. Return None for an invalid value."""
        try:
            return network_from(value if isinstance(value, str) else "")
        except ValueError as error:
            report(path, f"{shown(value)} {error}")
            return None

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"type": "string", "minLength": 1}


@dataclass(frozen=True)
class Umask:
    """A umask in octal digits, such as 022."""

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "octal digits"

    def read(self, value: Any, path: Path, report: Report) -> int:
        """Return the mask, 077 for an invalid one."""
        text = Text(UMASK, "an umask: three octal digits such as 022").read(value, path, report)
        return int(text, 8) if re.fullmatch(UMASK, text) else 0o077

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        number = {"type": "integer", "minimum": 0, "maximum": 777}
        return {"anyOf": [{"type": "string", "pattern": f"^(?:{UMASK})$"}, number]}


@dataclass(frozen=True)
class IoPriority:
    """`idle`, `best-effort:LEVEL` or `realtime:LEVEL`. LEVEL is from 0 (highest) to 7; see ionice(1)."""

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "class or class:level"

    def read(self, value: Any, path: Path, report: Report) -> tuple[int, int]:
        """Return the class and the level, as numbers of ioprio_set(2)."""
        text = Text(IONICE, "idle, best-effort:0 to best-effort:7, or realtime:0 to realtime:7").read(value, path, report)
        word, _, level = text.partition(":")
        return IONICE_CLASSES.get(word, 3), (int(level) if level in tuple("01234567") else 4) if word != "idle" else 0

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"type": "string", "pattern": f"^(?:{IONICE})$"}


@dataclass(frozen=True)
class Anything:
    """A value that another part of the program checks. `described` is its JSON Schema."""

    described: Mapping[str, Any]
    type_name: str = "any"
    is_secret = True

    def read(self, value: Any, path: Path, report: Report) -> Any:
        """Return the value unchanged."""
        return value

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return dict(self.described)
