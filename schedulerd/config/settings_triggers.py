"""The settings that say when a job is due: its triggers, and what moves or bounds their times."""

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


def _or_list(schema: Mapping[str, Any]) -> Anything:
    return Anything({"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]})


TRIGGERS: Mapping[str, Option] = {
    "cron": Option(
        _or_list(_A_TEXT), 'five fields, or six with seconds first, such as "30 2 * * *", or @daily and the like'
    ),
    "every": Option(
        _or_list(_INTERVAL),
        "elapsed time such as 90s or 10m, counted from 1970 UTC, or a phrase such as day at 03:00 or 5 to 10 minutes",
    ),
    "calendar": Option(_or_list(_A_TEXT), 'systemd\'s OnCalendar, such as "Mon..Fri *-*-* 08:30"'),
    "at": Option(_or_list(_A_TEXT), "an instant or a list of them, such as 2027-01-01T03:00:00 (of the job's zone)"),
    "startup": Option(Anything({"type": "boolean"}), "true: once whenever the daemon starts"),
    "after": Option(
        Anything({"anyOf": [{"const": "finish"}, _AFTER]}),
        "the results of other jobs: {job: NAME, when: success|failure|always}, all: [NAMES] or any: [NAMES]; "
        "with every, finish: counted from the end of the last run",
    ),
    "triggers": Option(
        Anything({"type": "array", "items": _ONE_OF_SEVERAL, "minItems": 1}), "several triggers: the job is due with each"
    ),
}


class GapWord(StrEnum):
    """What becomes of a local time that does not exist."""

    RUN = "run"
    SKIP = "skip"


class RepeatWord(StrEnum):
    """What becomes of a local time that comes twice."""

    ONCE = "once"
    BOTH = "both"


class BlackoutWord(StrEnum):
    """What becomes of an occurrence in a blackout."""

    SKIP = "skip"
    DEFER = "defer"


_WINDOW = {
    "anyOf": [
        _A_TEXT,
        {"type": "object", "properties": {"calendar": _A_TEXT}, "required": ["calendar"], "additionalProperties": False},
    ]
}
MOVERS: Mapping[str, Option] = {  # what moves or bounds the times of a trigger, and may stand in defaults too
    "dst": Option(
        Section(
            {
                "gap": Option(EnumOf(GapWord), "run: once right after the gap; skip: not on that day"),
                "repeat": Option(EnumOf(RepeatWord), "once: the first time only; both: each time"),
            }
        ),
        "what daylight saving does to times; unset, Debian cron's rule (calendar: systemd's)",
    ),
    "jitter": Option(Duration(), "each occurrence starts up to this much later, another time each time", 0.0),
    "spread": Option(Duration(), "each host starts up to this much later, always by the same time", 0.0),
    "blackout": Option(
        Anything({"anyOf": [*_WINDOW["anyOf"], {"type": "array", "items": _WINDOW}]}),
        "windows without starts: sat..sun, 22:00..06:00, 2026-12-24..2026-12-26 or {calendar: NAME}",
    ),
    "on_blackout": Option(EnumOf(BlackoutWord), "what becomes of an occurrence in a blackout", BlackoutWord.SKIP),
}
