"""The union of several triggers: the job is due when any of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ..core.models import MICROSECOND
from ..core.trigger import Events
from .base import Rule

MOST_WALKED = 2000  # occurrences per rule: more are not enumerated


@dataclass(frozen=True, slots=True)
class AnyOf(Rule):
    """Due when any of `rules` is; a time that several of them share is one occurrence."""

    rules: tuple[Rule, ...]

    @property
    def kind(self) -> str:
        """Return the kind of the first rule."""
        return self.rules[0].kind

    @property
    def text(self) -> str:
        """Return the texts of all rules."""
        return " | ".join(rule.text for rule in self.rules)

    @property
    def rhythm(self) -> Rule | None:
        """Return the union of the parts that follow elapsed time."""
        return any_of([each for each in (rule.rhythm for rule in self.rules) if each is not None])

    @property
    def events(self) -> Events:
        """Return the events of all rules."""
        return Events(
            any(rule.events.at_startup for rule in self.rules),
            tuple(after for rule in self.rules for after in rule.events.after),
        )

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first time of any rule."""
        return min((at for at in (rule.next_after(instant) for rule in self.rules) if at is not None), default=None)

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many times are in (after, upto]; when there are very many, shared times count for each rule."""
        counts = [number for number in (rule.count(after, upto) for rule in self.rules) if number]
        if len(counts) < 2 or sum(counts) > MOST_WALKED * len(counts):
            return sum(counts)
        return Rule.count(self, after, upto)

    def reasons(self, at: datetime) -> tuple[str, ...]:
        """Return the reasons of the rules that are due at `at`."""
        due = [rule for rule in self.rules if rule.next_after(at - MICROSECOND) == at]
        return tuple(reason for rule in due for reason in rule.reasons(at))

    def why_not(self, instant: datetime) -> str | None:
        """Return the first reason that a rule gives."""
        return next((why for why in (rule.why_not(instant) for rule in self.rules) if why is not None), None)


def any_of(rules: Sequence[Rule]) -> Rule | None:
    """Return the union of `rules`: None for none, and the rule itself for one."""
    if len(rules) < 2:
        return rules[0] if rules else None
    return AnyOf(tuple(rules))
