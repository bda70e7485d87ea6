"""What an expression means, without a daemon: `schedulerctl explain`."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from ..core.clock import Clock
from ..core.errors import SchedulerdError
from ..core.models import to_text
from ..core.trigger import Occurrence, Trigger
from ..triggers.calendar import CalendarTrigger
from ..triggers.date import instant_from
from ..triggers.factory import AdjustedRule, trigger_from
from ..triggers.wallclock import WallClockRule

EXPRESSIONS = ("cron", "calendar", "every", "at")
MOST = 1000  # times


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `explain`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cron", metavar="TEXT", help='such as "30 2 * * mon-fri"')
    what.add_argument("--calendar", metavar="TEXT", help='systemd\'s OnCalendar, such as "Mon..Fri 08:30"')
    what.add_argument("--every", metavar="TEXT", help='such as 10m, or "monday at 09:30"')
    what.add_argument("--at", metavar="TIME", help="such as 2027-01-01T03:00:00")
    parser.add_argument("--timezone", default="UTC", help="an IANA name (%(default)s)")
    parser.add_argument(
        "--after", metavar="TIME", help="the times after this one (default: now); without a zone, local there"
    )
    parser.add_argument("--count", type=int, default=10, help=f"how many, 1 to {MOST} (%(default)s)")
    parser.add_argument("--gap", choices=("run", "skip"), help="what becomes of a time that daylight saving skips")
    parser.add_argument("--repeat", choices=("once", "both"), help="what becomes of a time that comes twice")
    parser.add_argument("--blackout", action="append", metavar="WINDOW", help="such as sat..sun; may be repeated")


def explained(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """Return what an expression means and its coming times, as plain values. Raise TriggerError for a bad one."""
    if not 1 <= options.count <= MOST:
        raise SchedulerdError(f"--count {options.count}: expected 1 to {MOST}")
    given = {name: getattr(options, name) for name in EXPRESSIONS if getattr(options, name) is not None}
    dst = {"gap": options.gap, "repeat": options.repeat}
    moved = {"blackout": options.blackout, "dst": dst if any(dst.values()) else None}
    trigger = trigger_from({**given, **moved}, options.timezone)
    assert trigger is not None  # noqa: S101 - argparse asks for one
    after = clock.now() if options.after is None else instant_from("--after", options.after, options.timezone)
    zone = ZoneInfo(options.timezone)
    return {
        "trigger": trigger.text,
        "trigger_type": trigger.kind,
        "timezone": options.timezone,
        **_of_rule(trigger.rule if isinstance(trigger, AdjustedRule) else trigger),
        "after": to_text(after),
        "times": [_time(each, zone) for each in _starts(trigger, after, options.count)],
    }


def _of_rule(rule: Trigger) -> dict[str, Any]:
    """Return what there is to know about the rule itself."""
    out: dict[str, Any] = {}
    if isinstance(rule, CalendarTrigger):
        out["normalized"] = rule.normalized
    if isinstance(rule, WallClockRule):
        out["dst"] = rule.daylight.text
    return out


def _starts(trigger: Trigger, after: datetime, count: int) -> list[Occurrence]:
    starts: list[Occurrence] = []
    found = trigger.explain(after, count)
    while found and len(starts) < count:
        starts += [each for each in found if each.skipped is None]
        found = trigger.explain(found[-1].scheduled_at, count) if len(starts) < count else []
    return starts[:count]


def _time(each: Occurrence, zone: ZoneInfo) -> dict[str, Any]:
    return {"at": to_text(each.start_at), "local": each.start_at.astimezone(zone).isoformat(), "reasons": list(each.reasons)}
