"""Triggers: pure rules that say when a job is due.

`trigger_from` makes one from what stands in the YAML; all of them have `next_after(instant)` (see `model.Trigger`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..durations import parse_duration
from ..errors import TriggerError
from ..model import Trigger
from .cron import CronTrigger
from .interval import IntervalTrigger
from .zones import zone_named

__all__ = ["KINDS", "CronTrigger", "IntervalTrigger", "trigger_from"]


def _cron(value: Any, timezone: str) -> Trigger:
    if not isinstance(value, str):
        raise TriggerError("cron", str(value), 'a text in quotes is needed, such as "30 2 * * *"')
    return CronTrigger(value, timezone)


def _every(value: Any, timezone: str) -> Trigger:
    try:
        return IntervalTrigger(parse_duration(value))
    except ValueError as error:
        raise TriggerError("every", str(value), str(error)) from None


KINDS: Mapping[str, Callable[[Any, str], Trigger]] = {"cron": _cron, "every": _every}


def trigger_from(mapping: Mapping[str, Any], timezone: str = "UTC") -> Trigger | None:
    """Return the trigger that `mapping` names with one of its keys (`cron`, `every`), or None when it has none.

    Raise TriggerError, which names the field, the text and why, for anything that is not valid.
    """
    named = [key for key in KINDS if key in mapping]
    if len(named) > 1:
        raise TriggerError(named[1], str(mapping[named[1]]), f"the job already has {named[0]!r}")
    try:
        zone_named(timezone)
    except ValueError as error:
        raise TriggerError("timezone", timezone, str(error)) from None
    return KINDS[named[0]](mapping[named[0]], timezone) if named else None
