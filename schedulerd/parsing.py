"""What handlers read from a request: each value is checked, and what is wrong with it is told with its place.

The errors have the shape and the `type` words that callers of the founding API know (its framework's, FastAPI's).
"""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from .durations import parse_duration
from .errors import InvalidError, WrongTypeError
from .model import Status
from .params import echo as echo
from .schema import did_you_mean

LARGEST_LIMIT, DEFAULT_LIMIT = 100, 10
BODY_SECONDS = 30.0
IDEMPOTENCY_KEY = r"[\x21-\x7e]{1,255}"


def limit_from(text: str | None, name: str = "limit") -> int:
    """Return how many rows are asked for with the parameter `name`."""
    loc: list[str | int] = ["query", name]
    if text is None:
        return DEFAULT_LIMIT
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise InvalidError(loc, "Input should be a valid integer", text, "int_parsing")
    value = int(text)
    if value < 1:
        raise InvalidError(loc, "Input should be greater than or equal to 1", text, "greater_than_equal")
    if value > LARGEST_LIMIT:
        raise InvalidError(loc, f"Input should be less than or equal to {LARGEST_LIMIT}", text, "less_than_equal")
    return value


def statuses_from(texts: list[str]) -> list[str] | None:
    """Return the statuses that are asked for (each word, and each part between commas), or None for all."""
    named = [each for text in texts for each in text.split(",") if each]
    for each in named:
        if each not in list(Status):
            raise InvalidError(["query", "status"], f"Input should be {', '.join(Status)}", each, "enum")
    return named or None


def key_from(request: web.Request) -> str | None:
    """Return the idempotency key, or None."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch(IDEMPOTENCY_KEY, key):
        raise InvalidError(["header", "Idempotency-Key"], "Input should be 1 to 255 visible ASCII characters", key)
    return key


def wait_from(text: str | None) -> float | None:
    """Return how many seconds to wait for a run's end: None is for ever, 0 not at all."""
    if text in (None, "true"):
        return None
    if text == "false":
        return 0
    try:
        return parse_duration(text)
    except ValueError:
        raise InvalidError(["query", "wait"], "Input should be true, false or a duration such as 30s", text) from None


def run_id_from(text: str | None) -> str | None:
    """Return the run_id before which a page ends, or None."""
    if text is not None and not re.fullmatch(r"[0-9a-f-]{36}", text):
        raise InvalidError(["query", "before"], "Input should be a run_id", text)
    return text


def instant_from(value: Any, *loc: str) -> datetime | None:
    """Return the time, with a zone, in a value that stands at `loc`; None when there is none."""
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            raise ValueError("no zone")
        return at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        message = "Input should be a time with a zone, such as 2027-01-31T06:00:00Z"
        raise InvalidError([*loc], message, echo(value), "datetime") from None


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


async def json_body(request: web.Request, *known: str) -> dict[str, Any]:
    """Return the request's JSON object, empty when there is no body; only the keys `known` may be in it.

    Raise InvalidError or WrongTypeError.
    """
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise WrongTypeError("a compressed body is not taken")
    try:
        body = await asyncio.wait_for(request.read(), BODY_SECONDS)
    except TimeoutError:
        raise InvalidError(["body"], f"The body did not come within {BODY_SECONDS:g} s", None, "timeout") from None
    if not body:
        return {}
    if request.content_type != "application/json":
        raise WrongTypeError("the body must be JSON, with Content-Type: application/json")
    try:
        value = json.loads(body, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text, and cannot be kept
    except (ValueError, RecursionError) as error:
        raise InvalidError(["body"], f"JSON decode error: {error}", None, "json_invalid") from None
    if not isinstance(value, dict):
        raise InvalidError(["body"], "Input should be an object", echo(value), "dict_type")
    for key in value:
        if key not in known:
            expected = f"expected {' or '.join(known)}" if known else "nothing is expected here"
            message = f"Unknown key{did_you_mean(key, known)}: {expected}"
            raise InvalidError(["body", key], message, echo(value[key]), "extra_forbidden")
    return value


def host_name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?", host)
    return match[1].lower() if match else ""
