"""Reads a YAML file into plain values, and finds the line and column of each of them.

libyaml composes the nodes, and one pass builds the values. Duplicate keys and tags are mistakes. The numbers of values and
levels are limited, also after aliases are followed; a file with too many values is refused before it is composed. Plain
words follow YAML 1.2: only `true` and `false` are booleans, and `12:30` or `2027-01-01` are texts.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.cyaml import CParser  # type: ignore[attr-defined]

from ..core.errors import ConfigError, Problem
from .fields import HiddenKey, Path

MOST_VALUES = 300_000  # of one file, keys among them; also after aliases are followed
MOST_VALUES_OF_ALL = 1_000_000  # of all files of a configuration
MOST_MISTAKES = 100  # of one file; after that, checking stops
DEEPEST = 20

_INDICATORS = (b":", b",", b"-", b"?", b"[", b"{")  # each value follows one of them, and at most two values follow one
_PLAIN, _QUOTED = "plain", "quoted"
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
_WAYS_OUT = {  # by a part of the message of libyaml
    "scanning an alias": "put a value with * or & in quotes",
    "cannot start any token": "indent by spaces, not tabs; put a value that begins with @, ` or % in quotes",
    "mapping values are not allowed": "put a value with a colon and a space in it in quotes, or write it as a block: |",
}
_OMITTED = "…"  # in place of a key that may hold a secret
_MARKS = ("=", "@", "//")  # of a URL or a pair of a name and a value, written in place of a key
_STANDARD_TAGS = "tag:yaml.org,2002:"
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


class _TooDeepError(Exception):
    pass


class _TooManyError(Exception):
    def __init__(self, mark: Any) -> None:
        super().__init__()
        self.mark = mark


class _Composer(CParser):
    """The composer of libyaml. The tag of each scalar says only whether it was quoted."""

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
    """One YAML file: its `value`, and the line and column of every part of it."""

    def __init__(self, path: str, data: bytes, most: int = MOST_VALUES) -> None:
        """Read `data`, the content of the file `path`. Raise ConfigError when it is not YAML or has over `most` values."""
        self.path = path
        self.problems: list[Problem] = []
        self.count = 0  # of its values, keys among them
        self._most = most
        self._indices: dict[int, dict[Any, tuple[Any, Any]]] = {}
        self._root = self._compose(data)
        self.value = self._build(self._root, (), 0) if self._root is not None else None

    def problem(self, path: Path, text: str, *, is_warning: bool = False) -> Problem:
        """Return a problem with the line and column of `path`, or of the longest part of it that exists."""
        line, column = self._place(path)
        return Problem(self.path, line, column, dotted(path), text, is_warning)

    def _compose(self, data: bytes) -> Any:
        try:
            if _may_exceed(data, self._most):
                _count(data, self._most)
            return _Composer(data).get_single_node()
        except _TooDeepError:
            raise ConfigError([Problem(self.path, 1, 1, "", f"nested deeper than {DEEPEST} levels")]) from None
        except _TooManyError as error:
            line, column = error.mark.line + 1, error.mark.column + 1
            raise ConfigError([Problem(self.path, line, column, "", self._too_many())]) from None
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
        self.count += 1
        if self.count > self._most or depth > DEEPEST:
            what = f"nested deeper than {DEEPEST} levels" if depth > DEEPEST else self._too_many()
            raise ConfigError([self.problem(path[:3], what)])
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in (_PLAIN, _QUOTED):
            self._add(self.problem(path, _tag_refused(node.tag)))
        if isinstance(node, yaml.SequenceNode):
            return [self._build(each, (*path, index), depth + 1) for index, each in enumerate(node.value)]
        return self._mapping(node, path, depth)

    def _too_many(self) -> str:
        if self._most == MOST_VALUES:
            return f"more than {MOST_VALUES:,} values: distribute the jobs over several included files"
        return f"more than {MOST_VALUES_OF_ALL:,} values in all files together"

    def _mapping(self, node: Any, path: Path, depth: int) -> dict[str, Any]:
        value: dict[str, Any] = {}
        self.count += len(node.value)  # keys
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str):
                self._report_at(key_node, path, "a key must be a word")
            elif key in value:
                self._report_at(key_node, (*path, key), f"duplicate key {_shown_key(key)}: already defined")
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
            self._add(self.problem(path, _tag_refused(node.tag)))
        return text

    def _report_at(self, node: Any, path: Path, text: str) -> None:
        mark = node.start_mark
        self._add(Problem(self.path, mark.line + 1, mark.column + 1, dotted(path), text))

    def _add(self, problem: Problem) -> None:
        self.problems.append(problem)
        if len(self.problems) >= MOST_MISTAKES:
            raise ConfigError(self.problems)

    def _index(self, node: Any) -> dict[Any, tuple[Any, Any]]:
        """Return the first key and value node of each name of a mapping. Built for the first problem in it."""
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


def _may_exceed(data: bytes, most: int) -> bool:
    """Return whether there may be more than `most` values. False is certain; otherwise, count them."""
    return 2 * sum(map(data.count, _INDICATORS)) + 1 > most


def _count(data: bytes, most: int) -> None:
    """Raise _TooManyError at the first value above `most`, or _TooDeepError. No value is stored meanwhile."""
    count = depth = 0
    for event in iter(CParser(data).get_event, None):
        count += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if count > most:
            raise _TooManyError(event.start_mark)
        if depth > DEEPEST * 2:
            raise _TooDeepError


def _way_out(text: str) -> str:
    """Return a hint for a mistake that the message of the parser does not explain, or an empty text."""
    return next((f" ({help_})" for words, help_ in _WAYS_OUT.items() if words in text), "")


def dotted(path: Path) -> str:
    """Return `path` as people write it: `jobs.report.command[0]`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_OMITTED if _is_hidden(step) else step}" for step in path)
    return text.removeprefix(".")


def _is_hidden(key: str) -> bool:
    return isinstance(key, HiddenKey) or any(each in key for each in _MARKS)


def _shown_key(key: str) -> str:
    return _OMITTED if _is_hidden(key) else repr(key)


def _tag_refused(tag: str) -> str:
    """Return the message about a tag. The tag may be a password that begins with an exclamation mark."""
    if tag.startswith(_STANDARD_TAGS):
        return f"the tag {tag!r} is not allowed"
    return "a tag is not allowed: put a value that begins with ! in quotes"
