"""Events that start a job: the start of the daemon, and the ends of other jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..core.errors import TriggerError
from ..core.text import did_you_mean
from ..core.trigger import After, Events, Trigger, When
from .base import Rule

EXPECTED = "expected {job: NAME, when: success|failure|always}, or with all: [NAMES] or any: [NAMES] instead of job"


@dataclass(frozen=True, slots=True)
class EventTrigger(Rule):
    """Due when an event happens; it has no times."""

    happening: Events

    @property
    def kind(self) -> str:
        """Return `startup` or `after`."""
        return "startup" if self.happening.at_startup else "after"

    @property
    def text(self) -> str:
        """Return the rule for display."""
        return "startup" if self.happening.at_startup else "; ".join(map(str, self.happening.after))

    @property
    def events(self) -> Events:
        """Return the events."""
        return self.happening

    def next_after(self, instant: datetime) -> datetime | None:
        """Return None: the time of an event is unknown."""
        return None

    def count(self, after: datetime, upto: datetime) -> int:
        """Return 0."""
        return 0


def startup_from(value: Any) -> EventTrigger | None:
    """Return the trigger of `startup: true`; None for false. Raise TriggerError."""
    if not isinstance(value, bool):
        raise TriggerError("startup", str(value), "expected true: run at each start of the daemon")
    return EventTrigger(Events(at_startup=True)) if value else None


def after_from(value: Any) -> EventTrigger:
    """Return the trigger of `after`. Raise TriggerError."""
    if not isinstance(value, Mapping):
        raise TriggerError("after", str(value), EXPECTED)
    named = [key for key in ("job", "all", "any") if key in value]
    unknown = [key for key in value if key not in ("job", "all", "any", "when")]
    if len(named) != 1 or unknown:
        raise TriggerError("after", ", ".join(map(str, unknown or value)), EXPECTED)
    jobs = [value["job"]] if named == ["job"] else value[named[0]]
    if not isinstance(jobs, (list, tuple)) or not jobs or not all(isinstance(job, str) and job for job in jobs):
        raise TriggerError("after", str(value[named[0]]), f"expected ids of jobs: {EXPECTED}")
    if value.get("when", When.SUCCESS) not in list(When):
        raise TriggerError("after", str(value["when"]), f"expected when: {' or '.join(When)}")
    after = After(tuple(dict.fromkeys(jobs)), When(value.get("when", When.SUCCESS)), needs_all=named == ["all"])
    return EventTrigger(Events(after=(after,)))


def invalid_dependencies(triggers: Mapping[str, Trigger | None]) -> Iterator[tuple[str, str]]:
    """Yield each job with a dependency that does not exist or is circular, with the error message."""
    links = {
        job_id: [name for after in trigger.events.after for name in after.jobs]
        for job_id, trigger in triggers.items()
        if trigger is not None and trigger.events.after
    }
    for job_id, names in links.items():
        for name in names:
            if name not in triggers:
                yield job_id, f"there is no job {name!r}{did_you_mean(name, triggers)}"
        circle = _circle(job_id, links)
        if circle is not None:
            yield job_id, f"circular dependency: {' after '.join(circle)}"


def _circle(job_id: str, links: Mapping[str, list[str]]) -> list[str] | None:
    """Return the shortest circle of dependencies through a job, or None."""
    ways = [[job_id]]
    visited = set()
    for way in ways:
        for name in links.get(way[-1], ()):
            if name == job_id:
                return [*way, name]
            if name not in visited:
                visited.add(name)
                ways.append([*way, name])
    return None
