"""`schedulerctl explain`: what a trigger means, and its next times."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from ..core.clock import Clock, SystemClock
from ..core.errors import SchedulerdError
from ..core.models import to_text
from ..core.trigger import Occurrence, Trigger
from ..triggers.calendar import CalendarTrigger
from ..triggers.date import instant_from
from ..triggers.factory import AdjustedRule, trigger_from
from ..triggers.wallclock import WallClockRule
from .arguments import MOST_TIMES, Options
from .output import print_notes, print_result

TRIGGERS = ("cron", "calendar", "every", "at")


def print_explanation(options: Options) -> int:
    """Print what a trigger means, and its next times. Raise TriggerError, SchedulerdError for values that are not valid."""
    found = explain(options, SystemClock())
    rows = [(each["local"], each["at"], "; ".join(each["reasons"])) for each in found["times"]]
    if not options.json:
        has_dst = "dst" in found and found["dst"] not in found["trigger"]
        print(found["trigger"] + (f" ({found['dst']})" if has_dst else ""))
    print_result(options, found, ("LOCAL", "UTC", "REASON"), rows)
    return 0 if rows else print_notes(options, ["there is no further time"])


def explain(options: Options, clock: Clock) -> dict[str, Any]:
    """Return what a trigger means and its next times, as JSON values. Raise TriggerError, SchedulerdError."""
    if not 1 <= options.count <= MOST_TIMES:
        raise SchedulerdError(f"--count {options.count}: expected 1 to {MOST_TIMES}")
    rule = {name: getattr(options, name) for name in TRIGGERS if getattr(options, name) is not None}
    dst = {"gap": options.gap, "repeat": options.repeat}
    adjustments = {"blackout": options.blackout, "dst": dst if any(dst.values()) else None}
    trigger = trigger_from({**rule, **adjustments}, options.timezone)
    assert trigger is not None  # noqa: S101 - argparse requires one of TRIGGERS
    after = clock.now() if options.after is None else instant_from("--after", options.after, options.timezone)
    zone = ZoneInfo(options.timezone)
    return {
        "trigger": trigger.text,
        "trigger_type": trigger.kind,
        "timezone": options.timezone,
        **_rule_details(trigger.rule if isinstance(trigger, AdjustedRule) else trigger),
        "after": to_text(after),
        "times": [_time(each, zone) for each in _starts(trigger, after, options.count)],
    }


def _rule_details(rule: Trigger) -> dict[str, Any]:
    """Return the details that only some rules have."""
    details: dict[str, Any] = {}
    if isinstance(rule, CalendarTrigger):
        details["normalized"] = rule.normalized
    if isinstance(rule, WallClockRule):
        details["dst"] = rule.daylight.text
    return details


def _starts(trigger: Trigger, after: datetime, count: int) -> list[Occurrence]:
    starts: list[Occurrence] = []
    found = trigger.explain(after, count)
    while found and len(starts) < count:
        starts += [each for each in found if each.skipped is None]
        found = trigger.explain(found[-1].scheduled_at, count) if len(starts) < count else []
    return starts[:count]


def _time(each: Occurrence, zone: ZoneInfo) -> dict[str, Any]:
    return {"at": to_text(each.start_at), "local": each.start_at.astimezone(zone).isoformat(), "reasons": list(each.reasons)}
