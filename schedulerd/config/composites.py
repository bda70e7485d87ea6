"""More kinds of values, beside those of `config/fields.py`: what only the settings of actions and processes need."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.models import ParamWord
from ..core.proxies import Network, network_from
from ..core.text import shown
from .fields import Kind, Path, Record, Report, Text


@dataclass(frozen=True)
class OneOrMore:
    """A value, or a list of them."""

    kind: Kind

    def read(self, value: Any, path: Path, report: Report) -> tuple[Any, ...]:
        """Return the values."""
        if not isinstance(value, list):
            return (self.kind.read(value, path, report),)
        if not value:
            report(path, "expected at least one, not an empty list")
        return tuple(self.kind.read(each, (*path, index), report) for index, each in enumerate(value))

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"anyOf": [self.kind.schema(), {"type": "array", "items": self.kind.schema(), "minItems": 1}]}


@dataclass(frozen=True)
class ExactlyOne:
    """A mapping in which one of the keys `names` is set, and no two of them."""

    record: Record
    names: tuple[str, ...]

    def read(self, value: Any, path: Path, report: Report) -> dict[str, Any]:
        """Return the mapping."""
        read = self.record.read(value, path, report)
        if isinstance(value, Mapping) and sum(name in value for name in self.names) != 1:
            report(path, f"expected one of {' and '.join(self.names)}")
        return read

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {**self.record.schema(), "oneOf": [{"required": [name]} for name in self.names]}


@dataclass(frozen=True)
class RecordOrText:
    """A mapping, or a text that stands for the mapping that has only `key`."""

    record: Record
    key: str

    def read(self, value: Any, path: Path, report: Report) -> dict[str, Any]:
        """Return the mapping."""
        if isinstance(value, str):
            text = self.record.options[self.key].kind.read(value, path, report)
            return {name: option.default for name, option in self.record.options.items()} | {self.key: text}
        return self.record.read(value, path, report)

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        text = {"type": "string", **self.record.options[self.key].kind.schema()}
        return {"anyOf": [{**text, "type": "string"} if "anyOf" not in text else {"type": "string"}, self.record.schema()]}


@dataclass(frozen=True)
class Word:
    """A word of a command: a text, or `{param: NAME}` for the value of a parameter."""

    is_secret = True

    def read(self, value: Any, path: Path, report: Report) -> str | ParamWord:
        """Return the text, or which parameter it is."""
        if not isinstance(value, Mapping):
            return Text(is_secret=True).read(value, path, report)
        name = value.get("param")
        if len(value) != 1 or not isinstance(name, str):
            report(path, "a word is a text, or {param: NAME} for the value of a parameter")
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
class Number:
    """A number within bounds; `low` itself is left out when it is 0 and `above_zero`."""

    low: float
    high: float
    above_zero: bool = False

    def read(self, value: Any, path: Path, report: Report) -> Any:
        """Return the number, an integer or a float."""
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


UMASK = r"0?[0-7]{1,3}"


@dataclass(frozen=True)
class Addresses:
    """An IP address, or a network of them."""

    def read(self, value: Any, path: Path, report: Report) -> Network | None:
        """Return the network; that of one address has one."""
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
    """Octal digits, such as 022."""

    def read(self, value: Any, path: Path, report: Report) -> int:
        """Return the mask."""
        text = Text(UMASK, "an umask: three octal digits such as 022").read(value, path, report)
        return int(text, 8) if re.fullmatch(UMASK, text) else 0o077

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        number = {"type": "integer", "minimum": 0, "maximum": 777}
        return {"anyOf": [{"type": "string", "pattern": f"^(?:{UMASK})$"}, number]}


IONICE_CLASSES = {"realtime": 1, "best-effort": 2, "idle": 3}
IONICE = r"idle|(best-effort|realtime)(:[0-7])?"


@dataclass(frozen=True)
class IoPriority:
    """`idle`, `best-effort:LEVEL` or `realtime:LEVEL`, the level from 0 (first) to 7."""

    def read(self, value: Any, path: Path, report: Report) -> tuple[int, int]:
        """Return class and level."""
        text = Text(IONICE, "idle, best-effort:0 to best-effort:7, or realtime:0 to realtime:7").read(value, path, report)
        word, _, level = text.partition(":")
        return IONICE_CLASSES.get(word, 3), (int(level) if level in tuple("01234567") else 4) if word != "idle" else 0

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"type": "string", "pattern": f"^(?:{IONICE})$"}
