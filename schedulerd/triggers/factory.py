"""Make triggers from the configuration.

`trigger_from` returns a `core.trigger.Trigger` for the settings of a job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ..core.errors import TriggerError
from ..core.models import EPOCH, MICROSECOND
from ..core.trigger import NO_EVENTS, Trigger
from ..core.units import parse_duration
from .adjustments import AdjustedRule
from .base import Rule
from .blackouts import blackout_from
from .calendar import CalendarTrigger
from .cron import CronTrigger
from .date import DateTrigger, dates_from, instant_from
from .events import EventTrigger, after_from, startup_from
from .interval import IntervalTrigger
from .phrases import phrase_from
from .spans import Calendar
from .timezones import zone_named
from .union import AnyOf, any_of
from .wallclock import FIXED, WallClockRule, daylight_from

__all__ = [
    "FINISH",
    "KINDS",
    "SEVERAL",
    "AdjustedRule",
    "AnyOf",
    "CalendarTrigger",
    "CronTrigger",
    "DateTrigger",
    "EventTrigger",
    "IntervalTrigger",
    "trigger_from",
]

FINISH = "finish"  # `every: 10m` with `after: finish` counts from the end of the last run
SEVERAL = "triggers"
LONGEST_DELAY = 366 * 86_400.0  # seconds
SKIP, DEFER = ON_BLACKOUT = ("skip", "defer")


class _Context(NamedTuple):
    """What a rule needs besides its text."""

    timezone: str
    dst: Any
    seed: str


def _cron(value: Any, context: _Context) -> Rule:
    text = _text("cron", value, '"30 2 * * *"')
    return _with_dst(lambda *daylight: CronTrigger(text, context.timezone, *daylight), context.dst)


def _calendar(value: Any, context: _Context) -> Rule:
    text = _text("calendar", value, '"Mon..Fri *-*-* 08:30"')
    return _with_dst(lambda *daylight: CalendarTrigger(text, context.timezone, *daylight), context.dst)


def _every(value: Any, context: _Context) -> Rule:
    try:
        return IntervalTrigger(parse_duration(value))
    except ValueError as error:
        if not isinstance(value, str) or (" " not in value.strip() and not value.strip().isalpha()):
            raise TriggerError("every", str(value), str(error)) from None
    return _with_dst(lambda daylight=None: phrase_from(value, context.timezone, daylight, context.seed), context.dst)


def _with_dst(make: Callable[..., Rule], dst: Any) -> Rule:
    """Return the rule from `make`, with the job's `dst` setting over the default of the rule."""
    rule = make()
    if dst is None or not isinstance(rule, WallClockRule):
        return rule
    return make(daylight_from(dst, rule.daylight))


def _text(field: str, value: Any, example: str) -> str:
    if not isinstance(value, str):
        raise TriggerError(field, str(value), f"expected a text in quotes, such as {example}")
    return value


KINDS: Mapping[str, Callable[[Any, _Context], Rule | None]] = {
    "cron": _cron,
    "every": _every,
    "calendar": _calendar,
    "at": lambda value, context: dates_from([value], context.timezone, daylight_from(context.dst, FIXED)),
    "startup": lambda value, _context: startup_from(value),
    "after": lambda value, _context: after_from(value),
}


def trigger_from(
    mapping: Mapping[str, Any],
    timezone: str = "UTC",
    *,
    seed: str = "",
    host: str = "",
    calendars: Mapping[str, Calendar] | None = None,
) -> Trigger | None:
    """Return the trigger of a mapping, or None when it has none.

    The keys are those of KINDS, each with one value or a list, or `triggers` with a list of such mappings; and `dst`,
    `not_before`, `not_after`, `jitter`, `spread`, `blackout`, `on_blackout` and, with `every`, `after: finish`. Other keys
    are ignored. `seed` is the job's id, which decides what is pseudo-random. `host` names node and job, and decides the
    share of `spread`. `calendars` are those that `blackout` may name.

    Raise TriggerError, which names the field, the text and the reason, for an invalid setting.
    """
    try:
        zone_named(timezone)
    except ValueError as error:
        raise TriggerError("timezone", timezone, str(error)) from None
    rule = any_of(_rules(mapping, _Context(timezone, mapping.get("dst"), seed)))
    if rule is None:
        _check_without_rule(mapping, timezone, calendars or {})
        return None
    moved = _moved(rule, mapping, timezone, _Seeds(seed, host or seed), calendars or {})
    if isinstance(moved, AdjustedRule):
        _refuse_never_due(moved, mapping)
    return moved


def _check_without_rule(mapping: Mapping[str, Any], timezone: str, calendars: Mapping[str, Calendar]) -> None:
    """Validate the adjustments of a job without a trigger, and reject those that need one."""
    if SEVERAL in mapping:
        raise TriggerError(SEVERAL, str(mapping[SEVERAL]), "none of the triggers can make the job due")
    for name in ("not_before", "not_after"):
        if mapping.get(name) is not None:
            raise TriggerError(name, str(mapping[name]), "it has no effect: the job has no trigger")
    _moved(EventTrigger(NO_EVENTS), mapping, timezone, _Seeds("", ""), calendars)


def _refuse_never_due(table: AdjustedRule, mapping: Mapping[str, Any]) -> None:
    """Raise TriggerError when bounds or blackouts leave no time, as far as a search finds (see MOST_BLACKOUTS)."""
    is_lasting = table.blackout is None or table.blackout.is_weekly  # dates and calendars have an end
    if table.events != NO_EVENTS or table.waits_for_end or not is_lasting or table.rule.next_after(EPOCH) is None:
        return
    if table.next_after(max(EPOCH, table.not_before - MICROSECOND) if table.not_before else EPOCH) is None:
        field = "blackout" if table.blackout is not None else "not_after" if table.not_after is not None else "not_before"
        raise TriggerError(field, str(mapping[field]), f"no time of {table.rule.text} is left: it can never be due")


class _Seeds(NamedTuple):
    """The texts that decide the shares of jitter and spread."""

    seed: str
    host: str


def _rules(mapping: Mapping[str, Any], context: _Context) -> list[Rule]:
    named = [key for key in (*KINDS, SEVERAL) if key in mapping]
    is_from_end = mapping.get("after") == FINISH and "every" in named
    if is_from_end:
        named.remove("after")
    if len(named) > 1:
        why = f"the job already has {named[0]!r} (for several use {SEVERAL}: with a list)"
        raise TriggerError(named[1], str(mapping[named[1]]), why)
    if not named:
        return []
    if named == [SEVERAL]:
        return _several(mapping[SEVERAL], context)
    rules = _of_kind(named[0], mapping[named[0]], context)
    return [_from_end(rules, mapping["every"])] if is_from_end else rules


def _of_kind(key: str, value: Any, context: _Context) -> list[Rule]:
    """Return the rules of one key; a list is several rules."""
    if key == "at" and isinstance(value, (list, tuple)):
        return [dates_from(value, context.timezone, daylight_from(context.dst, FIXED))]
    if not isinstance(value, (list, tuple)):
        rule = KINDS[key](value, context)
        return [] if rule is None else [rule]
    if not value:
        raise TriggerError(key, "[]", "an empty list: it can never be due")
    rules = []
    for index, each in enumerate(value):
        try:
            rule = KINDS[key](each, context)
        except TriggerError as error:
            raise TriggerError(error.field, error.text, error.why, (key, index)) from None
        rules += [] if rule is None else [rule]
    return rules


def _several(given: Any, context: _Context) -> list[Rule]:
    if not isinstance(given, (list, tuple)) or not given:
        raise TriggerError(SEVERAL, str(given), "expected a list of triggers, such as [{cron: ...}, {startup: true}]")
    rules = []
    for index, each in enumerate(given):
        try:
            rules += _rules_of_element(each, context)
        except TriggerError as error:
            raise error.inside(SEVERAL, index) from None
    return rules


def _rules_of_element(given: Any, context: _Context) -> list[Rule]:
    unknown = [key for key in given if key not in KINDS] if isinstance(given, Mapping) else [given]
    if unknown:
        raise TriggerError(SEVERAL, ", ".join(map(str, unknown)), f"expected one of {', '.join(KINDS)}", ())
    rules = _rules(given, context)
    if any(rule.waits_for_end for rule in rules):
        raise TriggerError(
            "every", str(given["every"]), "a trigger that counts from the end of the last run cannot be combined with others"
        )
    return rules


def _from_end(rules: list[Rule], value: Any) -> Rule:
    if len(rules) != 1 or not isinstance(rules[0], IntervalTrigger):
        raise TriggerError("every", str(value), "with after: finish it must be one interval, such as 10m")
    return IntervalTrigger(rules[0].seconds, from_end=True)


def _moved(rule: Rule, given: Mapping[str, Any], timezone: str, seeds: _Seeds, calendars: Mapping[str, Calendar]) -> Trigger:
    """Return a rule with its adjustments; the rule itself when it has none."""
    begin, end = (_bound(name, given, timezone) for name in ("not_before", "not_after"))
    if begin is not None and end is not None and end < begin:
        raise TriggerError("not_after", str(given["not_after"]), "it is earlier than not_before: it can never be due")
    jitter, spread = (_seconds(name, given) for name in ("jitter", "spread"))
    action = given.get("on_blackout") or SKIP
    if action not in ON_BLACKOUT:
        raise TriggerError("on_blackout", str(action), f"expected {' or '.join(ON_BLACKOUT)}")
    blackout = blackout_from(given.get("blackout"), timezone, calendars, defers=action == DEFER)
    if not (begin or end or jitter or spread or blackout):
        return rule
    return AdjustedRule(rule, begin, end, jitter, spread, blackout, seeds.seed, seeds.host)


def _bound(field: str, given: Mapping[str, Any], timezone: str) -> datetime | None:
    value = given.get(field)
    return None if value is None else instant_from(field, value, timezone, is_end=field == "not_after")


def _seconds(field: str, given: Mapping[str, Any]) -> float:
    value = given.get(field)
    try:
        seconds = 0.0 if value is None else parse_duration(value)
    except ValueError as error:
        raise TriggerError(field, str(value), str(error)) from None
    if seconds > LONGEST_DELAY:
        raise TriggerError(field, str(value), "a delay is at most 366 days")
    return seconds
