"""Turn the text of a YAML file into plain values, and remember where each of them stands.

Quick (libyaml composes, and one pass of our own builds) and strict: a duplicate key is a problem, tags are refused, and a
bomb or a deep nest is stopped by count and depth. Plain words follow YAML 1.2: only `true` and `false` are booleans, and
`12:30` or `2027-01-01` are texts.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.cyaml import CParser  # type: ignore[attr-defined]

from .errors import ConfigError, Problem
from .schema import Path

MOST_VALUES = 1_000_000  # after aliases are followed
DEEPEST = 20

_PLAIN, _QUOTED = "plain", "quoted"
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
_WAYS_OUT = {  # by the parser's words (libyaml)
    "scanning an alias": "put a value with * or & in quotes",
    "cannot start any token": "indent by spaces, not tabs; put a value that begins with @, ` or % in quotes",
    "mapping values are not allowed": "put a value with a colon and a space in it in quotes, or write it as a block: |",
}
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


class _TooDeepError(Exception):
    pass


class _Composer(CParser):
    """libyaml's composer, which tells us of each node only whether it was quoted."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.depth = 0

    def resolve(self, _kind: type, _value: str, implicit: Any) -> str:
        return _PLAIN if implicit is True or (isinstance(implicit, tuple) and implicit[0]) else _QUOTED

    def descend_resolver(self, _node: Any, _index: Any) -> None:
        self.depth += 1
        if self.depth > DEEPEST * 2:  # keys and values each descend
            raise _TooDeepError

    def ascend_resolver(self) -> None:
        self.depth -= 1


class Document:
    """One YAML file: its `value`, and the place of every part of it."""

    def __init__(self, path: str, data: bytes) -> None:
        """Take `data` as the content of the file `path`. Raise ConfigError when it is not YAML."""
        self.path = path
        self.problems: list[Problem] = []
        self._count = 0
        self._indices: dict[int, dict[Any, tuple[Any, Any]]] = {}
        self._root = self._compose(data)
        self.value = self._build(self._root, (), 0) if self._root is not None else None

    def problem(self, path: Path, text: str, *, is_warning: bool = False) -> Problem:
        """Return a problem with the place of `path`, or of the nearest part of it that is there."""
        line, column = self._place(path)
        return Problem(self.path, line, column, dotted(path), text, is_warning)

    def _compose(self, data: bytes) -> Any:
        try:
            return _Composer(data).get_single_node()
        except _TooDeepError:
            raise ConfigError([Problem(self.path, 1, 1, "", f"nested deeper than {DEEPEST} levels")]) from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            text = " ".join(filter(None, (error.context, error.problem)))
            if "nesting depth" in text:  # newer versions of libyaml have a limit of their own
                raise ConfigError([Problem(self.path, line, column, "", f"nested deeper than {DEEPEST} levels")]) from None
            raise ConfigError([Problem(self.path, line, column, "", f"not YAML: {text}{_way_out(text)}")]) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError([Problem(self.path, 1, 1, "", f"not YAML: {str(error).splitlines()[0]}")]) from None

    def _build(self, node: Any, path: Path, depth: int) -> Any:
        self._count += 1
        if self._count > MOST_VALUES or depth > DEEPEST:
            what = f"nested deeper than {DEEPEST} levels" if depth > DEEPEST else f"more than {MOST_VALUES:,} values"
            raise ConfigError([self.problem(path[:3], what)])
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in (_PLAIN, _QUOTED):
            self.problems.append(self.problem(path, f"the tag {node.tag!r} is not allowed"))
        if isinstance(node, yaml.SequenceNode):
            return [self._build(each, (*path, index), depth + 1) for index, each in enumerate(node.value)]
        return self._mapping(node, path, depth)

    def _mapping(self, node: Any, path: Path, depth: int) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str):
                self._report_at(key_node, path, "a key must be a word")
            elif key in value:
                self._report_at(key_node, (*path, key), f"duplicate key {key!r}: it stands here already")
            elif key == "<<" and key_node.tag == _PLAIN:
                self._report_at(key_node, path, "merge keys (<<) are not supported: use defaults")
            else:
                value[key] = self._build(value_node, (*path, key), depth + 1)
        return value

    def _scalar(self, node: Any, path: Path) -> Any:
        text = node.value
        if node.tag == _PLAIN:
            if text in _WORDS:
                return _WORDS[text]
            if _INTEGER.fullmatch(text):
                return int(text)
            if _FLOAT.fullmatch(text) and str(float(text)) == text:
                return float(text)
        elif node.tag not in (_QUOTED, "tag:yaml.org,2002:str"):
            self.problems.append(self.problem(path, f"the tag {node.tag!r} is not allowed"))
        return text

    def _report_at(self, node: Any, path: Path, text: str) -> None:
        mark = node.start_mark
        self.problems.append(Problem(self.path, mark.line + 1, mark.column + 1, dotted(path), text))

    def _index(self, node: Any) -> dict[Any, tuple[Any, Any]]:
        """Return a mapping's first key and value node of each name; made when the first problem is inside it."""
        found = self._indices.get(id(node))
        if found is None:
            pairs = ((key, value) for key, value in reversed(node.value) if isinstance(key.value, str))
            found = self._indices[id(node)] = {key.value: (key, value) for key, value in pairs}
        return found

    def _place(self, path: Path) -> tuple[int, int]:
        node, mark = self._root, self._root.start_mark if self._root is not None else None
        for step in path:
            if isinstance(node, yaml.MappingNode):
                found = self._index(node).get(step)
                if found is None:
                    break
                mark, node = found[0].start_mark, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                mark = node.start_mark
            else:
                break
        return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def _way_out(text: str) -> str:
    """Return what helps against a mistake that the parser's words do not explain, or nothing."""
    return next((f" ({help_})" for words, help_ in _WAYS_OUT.items() if words in text), "")


def dotted(path: Path) -> str:
    """Return `path` as people write it: `jobs.report.command[0]`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")
