"""The settings that determine when a job is due: triggers and adjustments."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from ..core.trigger import When
from .composites import Option, Section
from .fields import Anything, Duration, EnumOf

_A_TEXT = {"type": "string"}
_INTERVAL = {"type": ["string", "number"]}
_AFTER = {
    "type": "object",
    "properties": {
        "job": _A_TEXT,
        "all": {"type": "array", "items": _A_TEXT, "minItems": 1},
        "any": {"type": "array", "items": _A_TEXT, "minItems": 1},
        "when": {"enum": [str(word) for word in When]},
    },
    "additionalProperties": False,
    "oneOf": [{"required": ["job"]}, {"required": ["all"]}, {"required": ["any"]}],
}
_ONE_OF_SEVERAL = {
    "type": "object",
    "properties": {
        **{name: {} for name in ("cron", "calendar", "every", "at")}, "startup": {"type": "boolean"}, "after": _AFTER,
    },
    "additionalProperties": False, "minProperties": 1, "maxProperties": 1,
}  # fmt: skip


def _or_list(schema: Mapping[str, Any], type_name: str = "text or list") -> Anything:
    return Anything({"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]}, type_name)


TRIGGERS: Mapping[str, Option] = {
    "cron": Option(
        _or_list(_A_TEXT),
        "Five fields of crontab(5), six with seconds first, or a word such as @daily.",
        example='"30 2 * * *"',
    ),
    "every": Option(
        _or_list(_INTERVAL, "duration, phrase or list"),
        "A duration, counted from 1970-01-01 UTC; or a phrase such as `day at 03:00` or `5 to 10 minutes`.",
        example="10m",
    ),
    "calendar": Option(_or_list(_A_TEXT), "An OnCalendar expression of systemd.time(7).", example='"Mon..Fri *-*-* 08:30"'),
    "at": Option(
        _or_list(_A_TEXT), "An instant, or a list of instants, in the time zone of the job.", example="2027-01-01T03:00:00"
    ),
    "startup": Option(
        Anything({"type": "boolean"}, "boolean"), "true: the job is due once at each start of the daemon.", example="true"
    ),
    "after": Option(
        Anything({"anyOf": [{"const": "finish"}, _AFTER]}, "finish or mapping"),
        "The results of other jobs: {job: NAME, when: success|failure|always}, {all: [NAMES]} or {any: [NAMES]}. "
        "With `every`, `finish` counts the time from the end of the last run.",
        example="{job: sync, when: success}",
    ),
    "triggers": Option(
        Anything({"type": "array", "items": _ONE_OF_SEVERAL, "minItems": 1}, "list of mapping"),
        "Several triggers. The job is due at the occurrences of each of them.",
        example='[{cron: "0 6 * * *"}, {every: 90m}]',
    ),
}


class DstGap(StrEnum):
    """What happens to a local time that does not exist, since clocks are set forward."""

    RUN = "run"
    SKIP = "skip"


class DstRepeat(StrEnum):
    """What happens to a local time that occurs twice, since clocks are set back."""

    ONCE = "once"
    BOTH = "both"


class OnBlackout(StrEnum):
    """What happens to an occurrence in a blackout."""

    SKIP = "skip"
    DEFER = "defer"


_WINDOW = {
    "anyOf": [
        _A_TEXT,
        {"type": "object", "properties": {"calendar": _A_TEXT}, "required": ["calendar"], "additionalProperties": False},
    ]
}
ADJUSTMENTS: Mapping[str, Option] = {  # settings that move or bound the times of a trigger, also valid in defaults
    "dst": Option(
        Section(
            {
                "gap": Option(
                    EnumOf(DstGap),
                    "What happens to a time that does not exist. run: it is due right after the gap. skip: it is left out.",
                    example="skip",
                ),
                "repeat": Option(
                    EnumOf(DstRepeat),
                    "What happens to a time that occurs twice. once: it is due the first time. both: it is due both times.",
                    example="once",
                ),
            }
        ),
        "The effect of daylight saving time (default: the rules of Debian's cron; for `calendar`, those of systemd).",
        example="{gap: skip, repeat: once}",
    ),
    "jitter": Option(Duration(), "Each occurrence is moved later by a random time up to this duration.", 0.0, example="5m"),
    "spread": Option(
        Duration(),
        "Each occurrence is moved later by a time up to this duration that differs between hosts and is constant on each.",
        0.0,
        example="30m",
    ),
    "blackout": Option(
        Anything({"anyOf": [*_WINDOW["anyOf"], {"type": "array", "items": _WINDOW}]}, "window or list"),
        "Windows without starts: weekdays (sat..sun), times of day (22:00..06:00), dates (2026-12-24..2026-12-26) or "
        "{calendar: NAME}.",
        example="[sat..sun, {calendar: holidays}]",
    ),
    "on_blackout": Option(
        EnumOf(OnBlackout),
        "What happens to an occurrence in a blackout. skip: it is recorded as skipped. defer: it starts at the end of the "
        "blackout.",
        OnBlackout.SKIP,
        example="defer",
    ),
}
