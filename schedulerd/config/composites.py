"""Fields that consist of others: lists, mappings, sections with known settings, and alternatives."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.text import did_you_mean
from .fields import Field, HiddenKey, Path, Report, format_key, format_value


@dataclass(frozen=True)
class Either:
    """A value of the field `then` when it is an instance of `when`, of the field `other` when it is not."""

    when: type[Any]
    then: Field
    other: Field

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return f"{self.then.type_name} or {self.other.type_name}"

    def read(self, value: Any, path: Path, report: Report) -> Any:
        """Return the value as the field that applies reads it."""
        return (self.then if isinstance(value, self.when) else self.other).read(value, path, report)

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"anyOf": [self.then.schema(), self.other.schema()]}


@dataclass(frozen=True)
class ListOf:
    """A list with at least `at_least` elements of one field. `expected` describes a valid list."""

    kind: Field
    at_least: int = 0
    expected: str = "a list"

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return f"list of {self.kind.type_name}"

    def read(self, value: Any, path: Path, report: Report) -> tuple[Any, ...]:
        """Return the elements."""
        if not isinstance(value, list) or len(value) < self.at_least:
            report(path, f"expected {self.expected}, not {'an empty list' if value == [] else format_value(self, value)}")
            return ()
        return tuple(self.kind.read(each, (*path, index), report) for index, each in enumerate(value))

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {"type": "array", "items": self.kind.schema(), "minItems": self.at_least}


@dataclass(frozen=True)
class OneOrMore:
    """One value of a field, or a list of them."""

    kind: Field

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return f"{self.kind.type_name} or list"

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
class MapOf:
    """A mapping whose keys match `key_pattern` and whose values are of one field. `key_expected` describes a valid key."""

    kind: Field
    key_pattern: str
    key_expected: str

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "mapping"

    def read(self, value: Any, path: Path, report: Report) -> dict[str, Any]:
        """Return the mapping, without the keys that may be secrets in the wrong place."""
        if not isinstance(value, Mapping):
            report(path, f"expected a mapping, not {format_value(self, value)}")
            return {}
        left_out = set()
        for key in value:
            if not re.fullmatch(self.key_pattern, key):
                step, text = format_key(self, key)
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


@dataclass(frozen=True)
class Option:
    """One setting: the field of its values, its help text, and the value that applies when it is not set.

    `example` is a value as a user writes it in YAML. `since` is the first version that has the setting.
    """

    kind: Field
    help: str
    default: Any = None
    required: bool = False
    example: str | None = None
    since: str = "0.1.0"


@dataclass(frozen=True)
class Section:
    """A mapping with known keys, each with an `Option`. Any other key is a mistake.

    `check` reports contradictions between the settings of one section.
    """

    options: Mapping[str, Option]
    check: Callable[[dict[str, Any], Path, Report], None] | None = field(default=None, compare=False)

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "mapping"

    def read(self, value: Any, path: Path, report: Report) -> dict[str, Any]:
        """Return every setting with its value or default."""
        if not isinstance(value, Mapping):
            report(path, f"expected a mapping, not {format_value(self, value)}")
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
        """Return only the settings that are in `value`."""
        options = self.options
        out = {}
        for key, each in value.items():
            option = options.get(key)
            if option is None:
                step, text = format_key(self, key)
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


@dataclass(frozen=True)
class ExactlyOne:
    """A section in which exactly one of the settings `names` must be given."""

    section: Section
    names: tuple[str, ...]

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "mapping"

    def read(self, value: Any, path: Path, report: Report) -> dict[str, Any]:
        """Return every setting with its value or default."""
        read = self.section.read(value, path, report)
        if isinstance(value, Mapping) and sum(name in value for name in self.names) != 1:
            report(path, f"expected exactly one of {', '.join(self.names)}")
        return read

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        return {**self.section.schema(), "oneOf": [{"required": [name]} for name in self.names]}


@dataclass(frozen=True)
class SectionOrText:
    """A section, or a text that is short for a section in which only `key` is given."""

    section: Section
    key: str

    @property
    def type_name(self) -> str:
        """Return the type as documentation names it."""
        return "text or mapping"

    def read(self, value: Any, path: Path, report: Report) -> dict[str, Any]:
        """Return every setting with its value or default."""
        if isinstance(value, str):
            text = self.section.options[self.key].kind.read(value, path, report)
            return {name: option.default for name, option in self.section.options.items()} | {self.key: text}
        return self.section.read(value, path, report)

    def schema(self) -> dict[str, Any]:
        """Return the schema."""
        text = {"type": "string", **self.section.options[self.key].kind.schema()}
        return {"anyOf": [{**text, "type": "string"} if "anyOf" not in text else {"type": "string"}, self.section.schema()]}
