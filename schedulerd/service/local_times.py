"""Times as callers write them and as answers show them."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from ..core.errors import InvalidError, TriggerError
from ..core.models import to_text
from ..triggers.date import instant_from
from ..triggers.wallclock import gap_around

YEARS = range(1900, 2501)  # that the triggers can compute


def in_years(at: datetime, name: str) -> datetime:
    """Return the time of the query parameter `name`. Raise InvalidError when its year is out of YEARS."""
    if at.year not in YEARS:
        message = f"Input should be a time in the years {YEARS.start} to {YEARS.stop - 1}"
        raise InvalidError(["query", name], message, to_text(at), "datetime")
    return at


def local_text(at: datetime, timezone: str) -> str:
    """Return an instant in ISO 8601, as local time of a time zone with its offset."""
    return at.astimezone(ZoneInfo(timezone)).isoformat()


def parse_time(text: str, timezone: str, name: str) -> tuple[datetime, str]:
    """Return the instant that the query parameter `name` means, and a sentence when that local time does not exist.

    A time without an offset is a local time of `timezone`. Raise InvalidError.
    """
    try:
        at = instant_from(name, text, timezone)
    except TriggerError as error:
        raise InvalidError(["query", name], f"Input should be a time: {error.why}", text, "datetime") from None
    in_years(at, name)
    local = datetime.fromisoformat(text.strip())
    gap = gap_around(timezone, local) if local.tzinfo is None else None
    if gap is None:
        return at, ""
    return gap[1], f"{local:%H:%M} does not exist on {local:%Y-%m-%d} in {timezone}: {gap[0]}."
