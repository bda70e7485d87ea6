"""Regular expressions from users, matched in time linear in the length of the text.

The re module backtracks: `([a-z]+)+` on 28 letters and a digit takes seconds, twice as long with each further letter,
while it holds the interpreter lock. An expression is therefore parsed with the parser of re and executed as a set of
states (K. Thompson, "Regular Expression Search Algorithm", CACM 11(6), 1968). Features that need backtracking, such as
group references and look-around, are rejected when the configuration is read.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

LONGEST = 500  # characters of an expression
MOST_STEPS = 2000  # states of an expression after expansion of its counted repetitions
MOST_CHARACTERS = 4096  # cached results of a character class: callers could supply a million different ones

_parser: Any = importlib.import_module("re._parser")  # since Python 3.11; the name without _ is deprecated
_FLAGS = re.IGNORECASE | re.DOTALL | re.ASCII
_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d", "CATEGORY_NOT_DIGIT": r"\D", "CATEGORY_SPACE": r"\s", "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w", "CATEGORY_NOT_WORD": r"\W",
}  # fmt: skip
_REFUSED = {
    "ASSERT": "looks ahead or behind", "ASSERT_NOT": "looks ahead or behind", "GROUPREF": "refers to a group",
    "GROUPREF_EXISTS": "refers to a group", "GROUPREF_IGNORE": "refers to a group", "ATOMIC_GROUP": "has an atomic group",
    "POSSESSIVE_REPEAT": "has a possessive repetition", "AT_NON_BOUNDARY": r"uses \B",
}  # fmt: skip


class PatternError(ValueError):
    """An expression cannot be parsed or cannot be matched in linear time; the message is the reason."""


@dataclass(frozen=True, slots=True)
class _Cursor:
    """A position in a text: the characters on both sides, and whether at most one character follows."""

    before: str
    after: str
    is_last: bool


@dataclass(slots=True)
class _Step:
    """A state with transitions to `targets`: by a character that `takes` accepts, or without one where `holds` is true."""

    targets: list[int]
    takes: Callable[[str], bool] | None = None
    holds: Callable[[_Cursor], bool] | None = None


@dataclass(slots=True)
class _Program:
    steps: list[_Step] = field(default_factory=lambda: [_Step([])])  # the first is the final state

    def add(self, step: _Step) -> int:
        if len(self.steps) == MOST_STEPS:
            raise PatternError(f"is too large: with its repetitions expanded it has more than {MOST_STEPS} states")
        self.steps.append(step)
        return len(self.steps) - 1


def matches(pattern: str, text: str) -> bool:
    """Return whether all of `text` matches, as `re.fullmatch` does. Raise PatternError."""
    steps, start = compiled(pattern)
    now = _closed(steps, [start], _Cursor("", text[:1], len(text) < 2))
    for place, char in enumerate(text):
        moved = [steps[each].targets[0] for each in now if _takes(steps[each], char)]
        if not moved:
            return False
        rest = text[place + 1 : place + 3]
        now = _closed(steps, moved, _Cursor(char, rest[:1], len(rest) < 2))
    return 0 in now


@lru_cache(maxsize=256)
def compiled(pattern: str) -> tuple[Sequence[_Step], int]:
    """Return the states of an expression and its initial state. Raise PatternError."""
    if len(pattern) > LONGEST:
        raise PatternError(f"is longer than {LONGEST} characters")
    try:
        tree = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"is not a regular expression: {error}") from None
    program = _Program()
    return program.steps, _sequence(program, tree, tree.state.flags, 0)


def _sequence(program: _Program, nodes: Iterable[Any], flags: int, target: int) -> int:
    """Add the states of consecutive nodes that lead to `target`; return the first."""
    for node in reversed(list(nodes)):
        target = _node(program, node, flags, target)
    return target


def _node(program: _Program, node: Any, flags: int, target: int) -> int:
    name, value = str(node[0]), node[1]
    if name == "BRANCH":
        return program.add(_Step([_sequence(program, branch, flags, target) for branch in value[1]]))
    if name == "SUBPATTERN":
        _, added, removed, nodes = value
        return _sequence(program, nodes, (flags | added) & ~removed, target)
    if name in ("MAX_REPEAT", "MIN_REPEAT"):  # greedy and lazy repetitions match the same texts
        return _repeat(program, value, flags, target)
    if name == "AT":
        return program.add(_Step([target], holds=_condition(str(value), flags)))
    return program.add(_Step([target], takes=_one(_class(node), flags & _FLAGS)))


def _repeat(program: _Program, value: Any, flags: int, target: int) -> int:
    least, most, nodes = value
    if most is _parser.MAXREPEAT:
        loop = program.add(_Step([target]))
        program.steps[loop].targets.insert(0, _sequence(program, nodes, flags, loop))
        first = loop
    else:
        first = target
        for _ in range(most - least):
            first = program.add(_Step([_sequence(program, nodes, flags, first), target]))
    for _ in range(least):
        first = _sequence(program, nodes, flags, first)
    return first


def _class(node: Any) -> str:
    """Return a node that matches one character as an expression."""
    name, value = str(node[0]), node[1]
    if name == "LITERAL":
        return _escaped(value)
    if name == "NOT_LITERAL":
        return f"[^{_escaped(value)}]"
    if name == "ANY":
        return "."
    if name == "IN":
        return f"[{''.join(map(_member, value))}]"
    raise PatternError(f"{_REFUSED.get(name, f'uses {name}')}, which is not supported")


def _member(node: Any) -> str:
    name, value = str(node[0]), node[1]
    if name == "NEGATE":
        return "^"
    if name == "RANGE":
        return f"{_escaped(value[0])}-{_escaped(value[1])}"
    return _CATEGORIES[str(value)] if name == "CATEGORY" else _escaped(value)


def _escaped(number: int) -> str:
    return f"\\U{number:08x}"


@lru_cache(maxsize=256)
def _one(expression: str, flags: int) -> Callable[[str], bool]:
    match = re.compile(expression, flags).fullmatch  # of one character: no backtracking
    return lru_cache(MOST_CHARACTERS)(lambda char: match(char) is not None)


def _takes(step: _Step, char: str) -> bool:
    return step.takes is not None and step.takes(char)


def _closed(steps: Sequence[_Step], begun: Iterable[int], place: _Cursor) -> set[int]:
    """Return the states with all that are reachable from them without a character."""
    found: set[int] = set()
    todo = list(begun)
    while todo:
        number = todo.pop()
        if number in found:
            continue
        found.add(number)
        step = steps[number]
        if step.takes is None and (step.holds is None or step.holds(place)):
            todo += step.targets
    return found


def _condition(name: str, flags: int) -> Callable[[_Cursor], bool]:
    is_by_line = bool(flags & re.MULTILINE)
    is_word = _one(r"\w", flags & _FLAGS)
    conditions: dict[str, Callable[[_Cursor], bool]] = {
        "AT_BEGINNING": lambda place: not place.before or (is_by_line and place.before == "\n"),
        "AT_BEGINNING_STRING": lambda place: not place.before,
        "AT_END": lambda place: not place.after or (place.after == "\n" and (is_by_line or place.is_last)),
        "AT_END_STRING": lambda place: not place.after,
        "AT_BOUNDARY": lambda place: is_word(place.before) != is_word(place.after),
    }
    if name not in conditions:
        raise PatternError(f"{_REFUSED.get(name, f'uses {name}')}, which is not supported")
    return conditions[name]
